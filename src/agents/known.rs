//! The agents, other than Claude Code, that setup and doctor know.

use super::{agent::Agent, cline, codex, copilot, gemini, names::CLAUDE, opencode, pi, qwen};

pub static KNOWN: [&Agent; 7] =
    [&codex::AGENT, &gemini::AGENT, &qwen::AGENT, &copilot::AGENT, &opencode::AGENT, &cline::AGENT, &pi::AGENT];

/// The words for all agents on our command line.
pub fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once(CLAUDE.program).chain(KNOWN.iter().map(|agent| agent.name.program))
}
