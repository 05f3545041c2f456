//! Codex: the daemon that runs the sessions, called threads, of its terminals.

pub mod daemon;

use crate::platform::{paths, process};
use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::PathBuf};

/// The tool by whose call the daemon tells our server which thread it serves. It is not listed.
pub const INTRODUCTION: &str = "introduce_thread";
/// The key in a call's `_meta` with the thread's id.
pub const THREAD: &str = "threadId";
/// The key in a call's `_meta`, and the field under it, that says where the thread comes from.
pub const THREAD_SOURCE: [&str; 2] = ["x-codex-turn-metadata", "thread_source"];
/// The source of a subagent's thread.
pub const SUBAGENT: &str = "subagent";

/// The word in the daemon's command line.
const APP_SERVER: &str = "app-server";
/// Its socket in Codex's folder.
const SOCKET: &str = "app-server-control/app-server-control.sock";
/// The variable that names Codex's folder. Codex passes it to its daemon, but not to our server.
const HOME: &str = "CODEX_HOME=";

/// The socket of the daemon that started this process, and the daemon's process.
pub fn socket() -> Option<(PathBuf, u32)> {
    let is_daemon = |pid: &u32| process::command_line(*pid).iter().any(|word| word == APP_SERVER);
    let daemon = process::ancestors(std::process::id()).into_iter().find(is_daemon)?;
    let environment = process::environment(daemon);
    let set = environment.iter().find_map(|entry| entry.as_bytes().strip_prefix(HOME.as_bytes()));
    let home = set.map(|home| PathBuf::from(OsStr::from_bytes(home)));
    let home = home.or_else(|| Some(paths::home().ok()?.join(".codex")))?;
    Some((fs::canonicalize(home.join(SOCKET)).ok()?, daemon)) // Codex puts a link there
}
