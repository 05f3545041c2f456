//! Our plugin as Claude Code installs it.

use serde_json::{Map, Value, json};
use std::{fs, path::Path};

/// Claude Code's name for it.
const PLUGIN: &str = "peers@claude-peers";

/// Writes the files into `home` that Claude Code 2.1.330 writes when it installs the plugin for all projects.
pub fn install(home: &Path) {
    let plugins = home.join(".claude/plugins");
    fs::create_dir_all(&plugins).unwrap();
    let copy = json!({
        "scope": "user", "installPath": plugins.join("cache/claude-peers/peers/0.1.0"), "version": "0.1.0",
        "installedAt": "2026-11-22T05:57:03.837Z", "lastUpdated": "2026-11-22T05:57:03.837Z",
    });
    let installed = json!({"version": 2, "plugins": {PLUGIN: [copy]}});
    fs::write(plugins.join("installed_plugins.json"), installed.to_string()).unwrap();
    switch(home, true);
}

/// Enables or disables it in the user's settings, as `claude plugin enable` and `disable` do.
pub fn switch(home: &Path, on: bool) {
    let file = home.join(".claude/settings.json");
    let settings = fs::read_to_string(&file).unwrap_or_else(|_| "{}".to_owned());
    let mut settings: Map<String, Value> = serde_json::from_str(&settings).unwrap();
    settings.insert("enabledPlugins".to_owned(), json!({PLUGIN: on}));
    fs::write(file, serde_json::to_string_pretty(&settings).unwrap()).unwrap();
}
