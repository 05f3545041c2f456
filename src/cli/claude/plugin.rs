//! Our plugin for Claude Code, which brings the MCP server and the hooks at once: whether this user has it.
//!
//! It counts as there when Claude Code has it installed *and* switched on for all projects: it starts no other.

use super::{Unreadable, config_folder, read_json};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Our plugin, as Claude Code names it: with the marketplace it comes from. A name that begins with `claude-` is not to be had.
pub const PLUGIN: &str = "peers@claude-peers";

/// What its settings say about plugins.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Settings {
    enabled_plugins: Option<BTreeMap<String, Value>>,
}

/// What it has installed: of each plugin one copy per scope.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Plugins {
    plugins: BTreeMap<String, Vec<Copy>>,
}

#[derive(Debug, Deserialize)]
struct Copy {
    scope: String,
}

/// Whether every session of this user starts our plugin.
///
/// # Errors
/// If Claude Code's files cannot be read or understood.
pub fn has_plugin() -> Result<bool, Unreadable> {
    let folder = config_folder()?;
    let settings: Settings = read_json(folder.join("settings.json"))?;
    if settings.enabled_plugins.is_none_or(|plugins| plugins.get(PLUGIN) != Some(&Value::Bool(true))) {
        return Ok(false);
    }
    let installed: Plugins = read_json(folder.join("plugins/installed_plugins.json"))?;
    Ok(installed.plugins.get(PLUGIN).is_some_and(|copies| copies.iter().any(|copy| copy.scope == "user")))
}
