//! The agents, other than Claude Code, that setup and doctor know: where each keeps its configuration, how it registers an MCP server,
//! and which plugin of ours it runs.

use super::{
    agent::{Agent, Mcp, Plugin},
    gemini, names,
};

pub static KNOWN: [&Agent; 7] = [
    &Agent {
        name: names::CODEX,
        title: "Codex",
        folder: [".codex", "CODEX_HOME", ""],
        mcp: Some(Mcp {
            files: &["config.toml"],
            key: "mcp_servers",
            note: Some("nothing else to do: Codex runs our tools without asking"),
            ..Mcp::PLAIN
        }),
        arrival: "at once in its terminals, through its daemon, else with the results of our tools",
        ..Agent::PLAIN
    },
    &gemini::AGENT,
    &Agent {
        name: names::QWEN,
        title: "Qwen Code",
        folder: [".qwen", "QWEN_HOME", ""],
        mcp: Some(Mcp { files: &["settings.json"], ..Mcp::TRUSTED }),
        arrival: "at once, through the session's inbox",
        ..Agent::PLAIN
    },
    &Agent {
        name: names::COPILOT,
        title: "Copilot CLI",
        is_ambiguous: true, // AWS has a program of this name
        folder: [".copilot", "COPILOT_HOME", ""],
        mcp: Some(Mcp { files: &["mcp-config.json"], ..Mcp::PLAIN }),
        plugin: Some(Plugin {
            file: "extensions/claude-peers/extension.mjs",
            source: include_str!("copilot/extension.mjs"),
            needs: Some("start `copilot --experimental` once: without it, Copilot CLI runs no extensions"),
        }),
        arrival: "at once in experimental mode, else with the results of our tools",
        ..Agent::PLAIN
    },
    &Agent {
        name: names::OPENCODE,
        title: "OpenCode",
        folder: [".config/opencode", "XDG_CONFIG_HOME", "opencode"],
        mcp: Some(Mcp { files: &["opencode.jsonc", "opencode.json", "config.json"], key: "mcp", remove: None, ..Mcp::PLAIN }),
        plugin: Some(Plugin { file: "plugin/claude-peers.js", source: include_str!("opencode/plugin.js"), needs: None }),
        arrival: "at once, through its plugin",
        ..Agent::PLAIN
    },
    &Agent {
        name: names::CLINE,
        title: "Cline",
        folder: [".cline", "CLINE_DIR", ""],
        mcp: Some(Mcp {
            files: &["data/settings/cline_mcp_settings.json"],
            add: &["mcp", "add", "claude-peers", "--yes", "--"],
            ..Mcp::PLAIN
        }),
        ..Agent::PLAIN
    },
    // It has no MCP: its extension starts our server.
    &Agent {
        name: names::PI,
        title: "Pi",
        is_ambiguous: true,
        folder: [".pi/agent", "PI_CODING_AGENT_DIR", ""],
        plugin: Some(Plugin { file: "extensions/claude-peers.ts", source: include_str!("pi/extension.ts"), needs: None }),
        arrival: "at once, through its extension",
        ..Agent::PLAIN
    },
];

/// The words for all agents on our command line.
pub fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once(names::CLAUDE.program).chain(KNOWN.iter().map(|agent| agent.name.program))
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
