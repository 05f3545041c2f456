//! How Gemini CLI is set up.

use super::hook::{AFTER_AGENT, AFTER_TOOL, BEFORE_AGENT, BEFORE_TOOL, HOOK};
use crate::agents::{
    agent::{Agent, Mcp, Wake},
    hooks::Hooks,
    names::GEMINI,
};

/// The events of our hook, each with the tools to which it is limited.
const EVENTS: [(&str, Option<&str>); 4] =
    [(AFTER_TOOL, None), (BEFORE_AGENT, None), (AFTER_AGENT, None), (BEFORE_TOOL, Some("mcp_claude-peers_.*"))];

pub static AGENT: Agent = Agent {
    name: GEMINI,
    title: "Gemini CLI",
    folder: [".gemini", "GEMINI_CLI_HOME", ".gemini"],
    // Without trust, a run without a terminal does not get the tools.
    mcp: Some(Mcp { files: &["settings.json"], ..Mcp::TRUSTED }),
    hooks: Some(Hooks { file: "settings.json", word: HOOK, events: &EVENTS, switch: ["hooksConfig", "enabled"] }),
    arrival: "beside the results of tools, and with the user's prompts",
    wake: Some(Wake {
        file: "settings.json",
        settings: &[("/experimental/modelSteering", "true"), ("/tools/shell/backgroundCompletionBehavior", "\"inject\"")],
    }),
    ..Agent::PLAIN
};
