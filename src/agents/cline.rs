//! Cline.

use super::{
    agent::{Agent, Mcp},
    names::CLINE,
};

pub static AGENT: Agent = Agent {
    name: CLINE,
    title: "Cline",
    folder: [".cline", "CLINE_DIR", ""],
    mcp: Some(Mcp {
        files: &["data/settings/cline_mcp_settings.json"],
        add: &["mcp", "add", "claude-peers", "--yes", "--"],
        ..Mcp::PLAIN
    }),
    ..Agent::PLAIN
};
