//! GitHub Copilot CLI.

use super::{
    agent::{Agent, Mcp, Plugin},
    names::COPILOT,
};

pub static AGENT: Agent = Agent {
    name: COPILOT,
    title: "Copilot CLI",
    // AWS has a program of this name.
    is_ambiguous: true,
    folder: [".copilot", "COPILOT_HOME", ""],
    mcp: Some(Mcp { files: &["mcp-config.json"], ..Mcp::PLAIN }),
    plugin: Some(Plugin {
        file: "extensions/claude-peers/extension.mjs",
        source: include_str!("extension.mjs"),
        needs: Some("start `copilot --experimental` once: without it, Copilot CLI runs no extensions"),
    }),
    hooks: None,
    arrival: "at once in experimental mode, else with the results of our tools",
    wake: None,
};
