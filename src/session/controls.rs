//! Claude Code's settings about messages from other sessions and about permission prompts.
//!
//! They are read each time, so a change applies from the next message on. A file that is missing or unreadable counts as empty,
//! because the client applies its own settings to its inbox anyway.

use crate::{
    agents::claude::managed_settings,
    platform::{files, paths, settings},
    wire::InboundRule,
};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;

/// Longest settings file, in bytes.
const MAX_SETTINGS: u64 = 1024 * 1024;
/// The permission mode that bypasses prompts.
const BYPASS: &str = "bypassPermissions";
const BYPASS_FLAG: &str = "--dangerously-skip-permissions";
const MODE_FLAG: &str = "--permission-mode";

/// The folder of Claude Code's user settings.
pub fn config_folder() -> Option<PathBuf> {
    settings::raw("CLAUDE_CONFIG_DIR").map(PathBuf::from).or_else(|| Some(paths::home().ok()?.join(".claude")))
}

/// The setting `crossSessionInbound`, if set: the administrator's value, else the strictest of the others. A project cannot set
/// `accept`.
pub fn cross_session_inbound() -> Option<InboundRule> {
    let said = |settings: Value| {
        let rule = InboundRule::deserialize(&settings["crossSessionInbound"]).ok()?;
        (rule != InboundRule::Match).then_some(rule)
    };
    let managed = managed_settings().into_iter().rev().find_map(|file| said(read(file)));
    if managed.is_some() {
        return managed;
    }
    let of_project = project().into_iter().filter_map(said).filter(|rule| *rule != InboundRule::Accept);
    let rules: Vec<InboundRule> = said(user()).into_iter().chain(of_project).collect();
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
    mode.map_or_else(|| user()["permissions"]["defaultMode"] == BYPASS, |mode| mode == BYPASS)
}

fn user() -> Value {
    config_folder().map(|folder| read(folder.join("settings.json"))).unwrap_or_default()
}

fn project() -> Vec<Value> {
    let Some(project) = settings::raw("CLAUDE_PROJECT_DIR").map(PathBuf::from) else { return Vec::new() };
    ["settings.json", "settings.local.json"].map(|name| read(project.join(".claude").join(name))).into()
}

/// The JSON in a file; null if there is none.
pub fn read(file: PathBuf) -> Value {
    files::read(&file, MAX_SETTINGS).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_flags_can_bypass_prompts() {
        for (line, expected) in [
            ("claude --dangerously-skip-permissions", true),
            ("claude --permission-mode bypassPermissions -c", true),
            ("claude --permission-mode=bypassPermissions", true),
            ("claude --permission-mode plan", false),
            ("claude --permission-mode=default --continue", false),
        ] {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(bypasses(&words), expected, "{line}");
        }
    }
}
