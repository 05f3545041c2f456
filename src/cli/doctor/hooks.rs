//! The hooks in Claude Code's settings: whether they are there, and run this program.

use super::{Finding, programs, registration::one_of_both, scene::Scene};
use crate::cli::claude::{HooksFile, Installed, PLUGIN, Unreadable};
use std::{fs, path::Path};

const HOOKS: &str = "hooks";
/// Settings that an administrator makes for everybody, by the systems' custom.
const MANAGED: [&str; 2] =
    ["/etc/claude-code/managed-settings.json", "/Library/Application Support/ClaudeCode/managed-settings.json"];

/// The hooks.
pub fn check(scene: &Scene) -> Finding {
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
    let installed = file.installed(&program);
    let plugin = matches!(scene.plugin, Ok(true));
    if plugin && installed != Installed::None {
        let what = format!("the plugin {PLUGIN} brings them, and {path} has ours as well: every event runs both");
        return Finding::warning(HOOKS, what, one_of_both());
    }
    let place = if plugin { format!("the plugin {PLUGIN}") } else { path.to_string() };
    match installed {
        Installed::None if !plugin => Finding::warning(
            HOOKS,
            format!("{path} has none of ours: without a channel, sessions see messages only when they call one of their tools"),
            "`claude-peers setup` puts them in",
        ),
        Installed::Other(programs) => {
            let what = format!("those in {path} are incomplete, of another version, or of another copy ({programs})");
            Finding::warning(HOOKS, what, "`claude-peers setup` renews them")
        }
        _ if file.disabled => {
            let what = format!("{place} has ours, and {path} switches all hooks off (`disableAllHooks`)");
            Finding::warning(HOOKS, what, "take `disableAllHooks` out, or use a channel")
        }
        _ => match MANAGED.into_iter().find(|path| forbids(Path::new(path))) {
            Some(managed) => {
                let what = format!("{place} has ours, and {managed} allows none of a user's");
                Finding::warning(HOOKS, what, "ask your administrator, or use a channel")
            }
            None => Finding::ok(HOOKS, format!("{place} has ours")),
        },
    }
}

/// Whether an administrator's settings keep a user's hooks from running.
fn forbids(path: &Path) -> bool {
    let settings = fs::read(path).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    settings.is_some_and(|settings| ["allowManagedHooksOnly", "disableAllHooks"].iter().any(|key| settings[*key] == true))
}
