//! Codex.

use super::agent::{Agent, Folder, Mcp};

pub static AGENT: Agent = Agent {
    name: "codex",
    title: "Codex",
    package: None,
    folder: Folder { usual: ".codex", moved: ["CODEX_HOME", ""] },
    mcp: Some(Mcp {
        files: &["config.toml"],
        is_toml: true,
        key: "mcp_servers",
        add: &["mcp", "add", "claude-peers", "--"],
        remove: Some(&["mcp", "remove", "claude-peers"]),
        note: Some("nothing more is to be done: Codex runs our tools without a question"),
    }),
    plugin: None,
    hook: None,
    arrival: "beside the results of our tools",
};
