//! Pi, which has no MCP: its extension starts our server.

use super::agent::{Agent, Folder, Plugin};

pub static AGENT: Agent = Agent {
    name: "pi",
    title: "Pi",
    package: Some("pi-coding-agent"),
    folder: Folder { usual: ".pi/agent", moved: ["PI_CODING_AGENT_DIR", ""] },
    mcp: None,
    plugin: Some(Plugin::new("extensions/claude-peers.ts", include_str!("extension.ts"), None)),
    hook: None,
    arrival: "at once, through its extension",
};
