//! The folder of a running Codex.

use crate::{agents::names::CODEX, platform::process};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// The folder, in the home directory.
pub const FOLDER: &str = ".codex";
/// The variable that names another folder. Codex passes it to its daemon, but not to our server.
const VARIABLE: &str = "CODEX_HOME";

/// Whether this command line is Codex's own, not that of the runtime which starts it.
pub fn is_codex(command_line: &[String]) -> bool {
    command_line.first().is_some_and(|word| Path::new(word).file_name() == Some(CODEX.program.as_ref()))
}

/// The folder of the Codex that runs as `pid`, by the environment with which it began; none if that cannot be read.
pub fn of(pid: u32) -> Option<PathBuf> {
    let environment = process::environment(pid);
    let set = |name: &str| environment.iter().find_map(|entry| value(entry, name));
    set(VARIABLE).map(PathBuf::from).or_else(|| Some(Path::new(set("HOME")?).join(FOLDER)))
}

fn value<'a>(entry: &'a OsString, name: &str) -> Option<&'a OsStr> {
    entry.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(OsStr::from_bytes)
}
