//! How Qwen Code is set up.

use crate::agents::{
    agent::{Agent, Mcp},
    names::QWEN,
};

pub static AGENT: Agent = Agent {
    name: QWEN,
    title: "Qwen Code",
    folder: [".qwen", "QWEN_HOME", ""],
    mcp: Some(Mcp { files: &["settings.json"], ..Mcp::TRUSTED }),
    arrival: "at once, through the session's inbox",
    ..Agent::PLAIN
};
