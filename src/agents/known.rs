//! The agents, other than Claude Code, that setup and doctor know.

use super::{agent::Agent, cline, codex, copilot, gemini, names::CLAUDE, opencode, pi, qwen};

pub static KNOWN: [&Agent; 7] =
    [&codex::AGENT, &gemini::AGENT, &qwen::AGENT, &copilot::AGENT, &opencode::AGENT, &cline::AGENT, &pi::AGENT];

/// The words for all agents on our command line.
pub fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once(CLAUDE.program).chain(KNOWN.iter().map(|agent| agent.name.program))
}

/// The agent with this name.
pub fn named(name: &str) -> Option<&'static Agent> {
    KNOWN.into_iter().find(|agent| agent.name.program == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn plugins_name_the_given_server() {
        let server = Path::new("/a b/it's \"x\"");
        let texts: Vec<_> = KNOWN.iter().filter_map(|agent| Some(agent.plugin.as_ref()?.text(server))).collect();
        assert_eq!(texts.iter().filter(|text| text.contains("SERVER@")).count(), 0);
        let starts_it = |text: &&String| text.contains("const SERVER = \"/a b/it's \\\"x\\\"\";");
        assert_eq!(texts.iter().filter(starts_it).count(), 1, "Pi's extension starts the server");
    }
}
