//! Gemini CLI.

use super::{
    agent::{Agent, Mcp},
    names::GEMINI,
};

pub static AGENT: Agent = Agent {
    name: GEMINI,
    title: "Gemini CLI",
    folder: [".gemini", "GEMINI_CLI_HOME", ".gemini"],
    // Without trust, a run without a terminal does not get the tools.
    mcp: Some(Mcp { files: &["settings.json"], ..Mcp::TRUSTED }),
    ..Agent::PLAIN
};
