//! GitHub Copilot CLI.

use super::agent::{Agent, Folder, Mcp, Plugin};

pub static AGENT: Agent = Agent {
    name: "copilot",
    title: "Copilot CLI",
    // AWS has a program of this name.
    package: Some("@github/copilot"),
    folder: Folder { usual: ".copilot", moved: ["COPILOT_HOME", ""] },
    mcp: Some(Mcp {
        files: &["mcp-config.json"],
        is_toml: false,
        key: "mcpServers",
        add: &["mcp", "add", "claude-peers", "--"],
        remove: Some(&["mcp", "remove", "claude-peers"]),
        note: None,
    }),
    plugin: Some(Plugin::new(
        "extensions/claude-peers/extension.mjs",
        include_str!("extension.mjs"),
        Some("Copilot CLI runs it only in experimental mode: `copilot --experimental` switches that on"),
    )),
    hook: None,
    arrival: "at once in experimental mode, else beside the results of our tools",
};
