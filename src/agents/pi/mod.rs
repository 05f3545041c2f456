//! Pi, which has no MCP: its extension starts our server.

use super::{
    agent::{Agent, Plugin},
    names::PI,
};

pub static AGENT: Agent = Agent {
    name: PI,
    title: "Pi",
    is_ambiguous: true,
    folder: [".pi/agent", "PI_CODING_AGENT_DIR", ""],
    plugin: Some(Plugin { file: "extensions/claude-peers.ts", source: include_str!("extension.ts"), needs: None }),
    arrival: "at once, through its extension",
    ..Agent::PLAIN
};
