//! Where the daemon listens that has started this process.

use super::home;
use crate::platform::{paths, process};
use std::{fs, path::PathBuf};

/// The word in the daemon's command line.
const APP_SERVER: &str = "app-server";
/// Its socket in Codex's folder.
const SOCKET: &str = "app-server-control/app-server-control.sock";

/// The socket of the daemon that started this process, and the daemon's process.
pub fn socket() -> Option<(PathBuf, u32)> {
    let lines = process::ancestors(std::process::id()).into_iter().map(|pid| (pid, process::command_line(pid)));
    let (daemon, line) = lines.into_iter().find(|(_, line)| home::is_codex(line))?;
    if !line.iter().any(|word| word == APP_SERVER) {
        return None; // without a daemon, Codex itself runs the thread
    }
    let folder = home::of(daemon).or_else(|| Some(paths::home().ok()?.join(home::FOLDER)))?;
    Some((fs::canonicalize(folder.join(SOCKET)).ok()?, daemon)) // Codex puts a link there
}
