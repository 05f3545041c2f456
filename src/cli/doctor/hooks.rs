//! The hooks in Claude Code's settings: whether they are there, and run this program.

use super::{Finding, programs, registration::one_of_both, scene::Scene};
use crate::cli::claude::{HooksFile, Installed, NAME, PLUGIN, Unreadable, hooks_forbidden_by};

const HOOKS: &str = "hooks";
/// What it means that none of ours run.
pub const WITHOUT_HOOKS: &str = "without a channel, sessions see messages only with their next call of one of our tools";

/// The hooks.
pub fn check(scene: &Scene) -> Finding {
    let file = match HooksFile::read() {
        Ok(file) => file,
        Err(error) => return not_understood(&error),
    };
    let plugin = match &scene.plugin {
        Ok(plugin) => *plugin,
        Err(error) => return not_understood(error),
    };
    let path = file.path.display();
    let Some(program) = programs::beside("claude-peers") else {
        return Finding::skipped(HOOKS, "this program does not know its own place");
    };
    let installed = file.installed(&program);
    if plugin && installed != Installed::None {
        let what = format!("the plugin {PLUGIN} brings them, and {path} has ours as well: every event runs both");
        return Finding::warning(HOOKS, what, one_of_both());
    }
    let (place, channel) = match plugin {
        true => (format!("the plugin {PLUGIN}"), format!("plugin:{PLUGIN}")),
        false => (path.to_string(), format!("server:{NAME}")),
    };
    let instead = format!("start sessions with `claude --dangerously-load-development-channels {channel}`");
    match installed {
        Installed::None if !plugin => {
            Finding::warning(HOOKS, format!("{path} has none of ours: {WITHOUT_HOOKS}"), "`claude-peers setup` puts them in")
        }
        Installed::Other(programs) => {
            let what = format!("those in {path} are incomplete, of another version, or of another copy ({programs})");
            Finding::warning(HOOKS, what, "`claude-peers setup` renews them")
        }
        _ if file.disabled => {
            let what = format!("{place} has ours, and {path} switches all hooks off (`disableAllHooks`): {WITHOUT_HOOKS}");
            Finding::warning(HOOKS, what, format!("take `disableAllHooks` out of {path}, or {instead}"))
        }
        _ => match hooks_forbidden_by() {
            Ok(Some(managed)) => {
                let managed = managed.display();
                let what = format!("{place} has ours, and {managed} lets none of a user's hooks run: {WITHOUT_HOOKS}");
                Finding::warning(HOOKS, what, format!("ask your administrator to allow them, or {instead}"))
            }
            Ok(None) => Finding::ok(HOOKS, format!("{place} has ours")),
            Err(error) => {
                let what = format!("{place} has ours, and whether an administrator lets them run cannot be told: {error}");
                Finding::warning(HOOKS, what, "tell your administrator")
            }
        },
    }
}

fn not_understood(error: &Unreadable) -> Finding {
    let help = match error {
        Unreadable::Broken { .. } => "correct that place in the file, or move the file away; nothing else changes it",
        _ => "give yourself the right to read it, or correct the variable",
    };
    Finding::failed(HOOKS, format!("Claude Code's settings cannot be understood: {error}"), help)
}
