//! How Codex is set up.

use crate::agents::{
    agent::{Agent, Mcp},
    names::CODEX,
};

pub static AGENT: Agent = Agent {
    name: CODEX,
    title: "Codex",
    folder: [".codex", "CODEX_HOME", ""],
    mcp: Some(Mcp {
        files: &["config.toml"],
        is_toml: true,
        key: "mcp_servers",
        note: Some("nothing else to do: Codex runs our tools without asking"),
        ..Mcp::PLAIN
    }),
    arrival: "at once in its terminals, through its daemon, else with the results of our tools",
    ..Agent::PLAIN
};
