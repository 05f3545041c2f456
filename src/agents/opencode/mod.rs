//! OpenCode.

use super::agent::{Agent, Folder, Mcp, Plugin};

pub static AGENT: Agent = Agent {
    name: "opencode",
    title: "OpenCode",
    package: None,
    folder: Folder { usual: ".config/opencode", moved: ["XDG_CONFIG_HOME", "opencode"] },
    mcp: Some(Mcp {
        files: &["opencode.jsonc", "opencode.json", "config.json"],
        is_toml: false,
        key: "mcp",
        add: &["mcp", "add", "claude-peers", "--"],
        remove: None,
        note: None,
    }),
    plugin: Some(Plugin::new("plugin/claude-peers.js", include_str!("plugin.js"), None)),
    hook: None,
    arrival: "at once, through its plugin",
};
