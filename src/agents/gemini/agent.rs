//! How Gemini CLI is set up.

use super::{
    doorbell::{FOLDER, SETTINGS, WAKE},
    hook::{AFTER_AGENT, AFTER_TOOL, BEFORE_AGENT, BEFORE_TOOL, HOOK},
};
use crate::agents::{
    agent::{Agent, Mcp},
    hooks::Hooks,
    names::GEMINI,
};

/// The events of our hook, each with the tools to which it is limited.
const EVENTS: [(&str, Option<&str>); 4] =
    [(AFTER_TOOL, None), (BEFORE_AGENT, None), (AFTER_AGENT, None), (BEFORE_TOOL, Some("mcp_claude-peers_.*"))];

pub static AGENT: Agent = Agent {
    name: GEMINI,
    title: "Gemini CLI",
    folder: FOLDER,
    // Without trust, a run without a terminal does not get the tools.
    mcp: Some(Mcp { files: &[SETTINGS], ..Mcp::TRUSTED }),
    hooks: Some(Hooks { file: SETTINGS, word: HOOK, events: &EVENTS, switch: ["hooksConfig", "enabled"] }),
    arrival: "beside the results of tools, and with the user's prompts",
    wake: Some(&WAKE),
    ..Agent::PLAIN
};
