//! Gemini CLI.

use super::agent::{Agent, Folder, Mcp};

pub static AGENT: Agent = Agent {
    name: "gemini",
    title: "Gemini CLI",
    package: None,
    folder: Folder { usual: ".gemini", moved: ["GEMINI_CLI_HOME", ".gemini"] },
    mcp: Some(Mcp {
        files: &["settings.json"],
        is_toml: false,
        key: "mcpServers",
        // Without trust, a run without a terminal does not get the tools.
        add: &["mcp", "add", "--scope", "user", "--trust", "claude-peers"],
        remove: Some(&["mcp", "remove", "--scope", "user", "claude-peers"]),
        note: None,
    }),
    plugin: None,
    hook: None,
    arrival: "beside the results of our tools",
};
