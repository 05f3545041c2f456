//! How Qwen Code is set up.

use crate::agents::{
    agent::{Agent, Mcp},
    claude::prompt_hook::EVENT,
    hook::Manner,
    names::QWEN,
};

pub static AGENT: Agent = Agent {
    name: QWEN,
    title: "Qwen Code",
    folder: [".qwen", "QWEN_HOME", ""],
    mcp: Some(Mcp { files: &["settings.json"], ..Mcp::TRUSTED }),
    hook: Some(&HOOK),
    arrival: "at once, through the session's inbox",
    ..Agent::PLAIN
};

/// Its hooks are those of Claude Code, with the time in milliseconds.
static HOOK: Manner = Manner { event: EVENT, word: "qwen-UserPromptSubmit", timeout: 5000, is_lenient: true };
