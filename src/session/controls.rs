//! Claude Code's settings about messages from other sessions and about permission prompts.
//!
//! They are read each time, so a change counts from the next message on. A file that is missing or cannot be read counts as empty:
//! the client itself applies its settings to what is written into its inbox.

use crate::{
    platform::{paths, settings},
    wire::InboundRule,
};
use serde::Deserialize;
use std::{fs, path::PathBuf};

/// An administrator's settings.
const MANAGED: &str = if cfg!(target_os = "macos") {
    "/Library/Application Support/ClaudeCode/managed-settings.json"
} else {
    "/etc/claude-code/managed-settings.json"
};
/// The permission mode that bypasses prompts.
const BYPASS: &str = "bypassPermissions";
const BYPASS_FLAG: &str = "--dangerously-skip-permissions";
const MODE_FLAG: &str = "--permission-mode";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    cross_session_inbound: Option<InboundRule>,
    permissions: Permissions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Permissions {
    default_mode: Option<String>,
}

/// The folder of Claude Code's user settings.
pub fn config_folder() -> Option<PathBuf> {
    settings::raw("CLAUDE_CONFIG_DIR").map(PathBuf::from).or_else(|| Some(paths::home().ok()?.join(".claude")))
}

/// The setting `crossSessionInbound`, if it is set: the administrator's, else the strictest of the others. A project cannot set
/// `accept`.
pub fn cross_session_inbound() -> Option<InboundRule> {
    let said = |settings: Settings| settings.cross_session_inbound.filter(|rule| *rule != InboundRule::Match);
    if let Some(rule) = read(PathBuf::from(MANAGED)).and_then(said) {
        return Some(rule);
    }
    let of_user = user().and_then(said);
    let of_project = project().into_iter().filter_map(said).filter(|rule| *rule != InboundRule::Accept);
    let rules: Vec<InboundRule> = of_user.into_iter().chain(of_project).collect();
    [InboundRule::Refuse, InboundRule::Hold, InboundRule::Accept].into_iter().find(|rule| rules.contains(rule))
}

/// Whether a session with this command line bypasses permission prompts from its start.
pub fn bypasses(command_line: &[String]) -> bool {
    let mut words = command_line.iter().map(String::as_str);
    let mut mode = None;
    while let Some(word) = words.next() {
        match word.split_once('=').unwrap_or((word, "")) {
            (BYPASS_FLAG, _) => return true,
            (MODE_FLAG, "") => mode = words.next(),
            (MODE_FLAG, value) => mode = Some(value),
            _ => {}
        }
    }
    let default = || user().and_then(|settings| settings.permissions.default_mode).is_some_and(|mode| mode == BYPASS);
    mode.map_or_else(default, |mode| mode == BYPASS)
}

fn user() -> Option<Settings> {
    read(config_folder()?.join("settings.json"))
}

fn project() -> Vec<Settings> {
    let Some(project) = settings::raw("CLAUDE_PROJECT_DIR").map(PathBuf::from) else { return Vec::new() };
    let files = ["settings.json", "settings.local.json"].map(|name| project.join(".claude").join(name));
    files.into_iter().filter_map(read).collect()
}

fn read(file: PathBuf) -> Option<Settings> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_flags_can_bypass_prompts() {
        let bypasses = |line: &str| bypasses(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for line in [
            "claude --dangerously-skip-permissions",
            "claude --permission-mode bypassPermissions -c",
            "claude --permission-mode=bypassPermissions",
        ] {
            assert!(bypasses(line), "{line}");
        }
        for line in ["claude --permission-mode plan", "claude --permission-mode=default --continue"] {
            assert!(!bypasses(line), "{line}");
        }
    }
}
