//! The hooks in Claude Code's settings: whether they are there, and run this program.

use super::{Finding, programs};
use crate::cli::claude::{HooksFile, Installed, Unreadable};
use std::{fs, path::Path};

const HOOKS: &str = "hooks";
/// Settings that an administrator makes for everybody, by the systems' custom.
const MANAGED: [&str; 2] =
    ["/etc/claude-code/managed-settings.json", "/Library/Application Support/ClaudeCode/managed-settings.json"];

/// The hooks.
pub fn check() -> Finding {
    let file = match HooksFile::read() {
        Ok(file) => file,
        Err(error) => {
            let help = match &error {
                Unreadable::Broken { .. } => "correct that place in the file, or move the file away; nothing else changes it",
                _ => "give yourself the right to read it, or correct the variable",
            };
            return Finding::failed(HOOKS, format!("Claude Code's settings cannot be understood: {error}"), help);
        }
    };
    let path = file.path.display();
    let Some(program) = programs::beside("claude-peers") else {
        return Finding::skipped(HOOKS, "this program does not know its own place");
    };
    match file.installed(&program) {
        Installed::None => Finding::warning(
            HOOKS,
            format!("{path} has none of ours: without a channel, sessions see messages only when they call one of their tools"),
            "`claude-peers setup` puts them in",
        ),
        Installed::Other(programs) => {
            let what = format!("those in {path} are incomplete, of another version, or of another copy ({programs})");
            Finding::warning(HOOKS, what, "`claude-peers setup` renews them")
        }
        Installed::Whole if file.disabled => {
            let what = format!("{path} has ours, and switches all hooks off (`disableAllHooks`)");
            Finding::warning(HOOKS, what, "take `disableAllHooks` out, or use a channel")
        }
        Installed::Whole => match MANAGED.into_iter().find(|path| forbids(Path::new(path))) {
            Some(managed) => {
                let what = format!("{path} has ours, and {managed} allows none of a user's");
                Finding::warning(HOOKS, what, "ask your administrator, or use a channel")
            }
            None => Finding::ok(HOOKS, format!("{path} has ours")),
        },
    }
}

/// Whether an administrator's settings keep a user's hooks from running.
fn forbids(path: &Path) -> bool {
    let settings = fs::read(path).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    settings.is_some_and(|settings| ["allowManagedHooksOnly", "disableAllHooks"].iter().any(|key| settings[*key] == true))
}
