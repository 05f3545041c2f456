//! Where the daemon listens that has started this process.

use crate::{
    agents::names::CODEX,
    platform::{paths, process},
};
use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// The word in the daemon's command line.
const APP_SERVER: &str = "app-server";
/// Its socket in Codex's folder.
const SOCKET: &str = "app-server-control/app-server-control.sock";
/// The variable that names Codex's folder. Codex passes it to its daemon, but not to our server.
const HOME: &str = "CODEX_HOME=";

/// The socket of the daemon that started this process, and the daemon's process.
pub fn socket() -> Option<(PathBuf, u32)> {
    let lines = process::ancestors(std::process::id()).into_iter().map(|pid| (pid, process::command_line(pid)));
    let is_codex = |line: &[String]| line.first().is_some_and(|word| Path::new(word).file_name() == Some(CODEX.program.as_ref()));
    let (daemon, line) = lines.into_iter().find(|(_, line)| is_codex(line))?;
    if !line.iter().any(|word| word == APP_SERVER) {
        return None; // without a daemon, Codex itself runs the thread
    }
    let environment = process::environment(daemon);
    let set = environment.iter().find_map(|entry| entry.as_bytes().strip_prefix(HOME.as_bytes()));
    let home = set.map(|home| PathBuf::from(OsStr::from_bytes(home)));
    let home = home.or_else(|| Some(paths::home().ok()?.join(".codex")))?;
    Some((fs::canonicalize(home.join(SOCKET)).ok()?, daemon)) // Codex puts a link there
}
