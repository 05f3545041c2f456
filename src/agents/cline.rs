//! Cline.

use super::agent::{Agent, Folder, Mcp};

pub static AGENT: Agent = Agent {
    name: "cline",
    title: "Cline",
    package: None,
    folder: Folder { usual: ".cline", moved: ["CLINE_DIR", ""] },
    mcp: Some(Mcp {
        files: &["data/settings/cline_mcp_settings.json"],
        is_toml: false,
        key: "mcpServers",
        add: &["mcp", "add", "claude-peers", "--yes", "--"],
        remove: Some(&["mcp", "remove", "claude-peers"]),
        note: None,
    }),
    plugin: None,
    hook: None,
    arrival: "beside the results of our tools",
};
