//! OpenCode.

use super::{
    agent::{Agent, Mcp, Plugin},
    names::OPENCODE,
};

pub static AGENT: Agent = Agent {
    name: OPENCODE,
    title: "OpenCode",
    folder: [".config/opencode", "XDG_CONFIG_HOME", "opencode"],
    mcp: Some(Mcp { files: &["opencode.jsonc", "opencode.json", "config.json"], key: "mcp", remove: None, ..Mcp::PLAIN }),
    plugin: Some(Plugin { file: "plugin/claude-peers.js", source: include_str!("plugin.js"), needs: None }),
    arrival: "at once, through its plugin",
    ..Agent::PLAIN
};
