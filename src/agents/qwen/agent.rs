//! How Qwen Code is set up.

use crate::agents::{
    agent::{Agent, Folder, Mcp},
    claude::prompt_hook::EVENT,
    hook::Manner,
};

pub static AGENT: Agent = Agent {
    name: "qwen",
    title: "Qwen Code",
    package: None,
    folder: Folder { usual: ".qwen", moved: ["QWEN_HOME", ""] },
    mcp: Some(Mcp {
        files: &["settings.json"],
        is_toml: false,
        key: "mcpServers",
        add: &["mcp", "add", "--scope", "user", "--trust", "claude-peers"],
        remove: Some(&["mcp", "remove", "--scope", "user", "claude-peers"]),
        note: None,
    }),
    plugin: None,
    hook: Some(&HOOK),
    arrival: "at once, through the session's inbox",
};

/// Its hooks are those of Claude Code, with the time in milliseconds.
static HOOK: Manner = Manner { event: EVENT, word: "qwen-UserPromptSubmit", timeout: 5000, is_lenient: true };
