//! An administrator's settings of Claude Code, which only one command sees.

use super::mount::with_mounts;
use std::{fs, path::Path, process::Command};

/// The shell script that makes the files of `$0` those of Claude Code's managed folder.
pub const MANAGED: &str = "mount -t tmpfs none /etc && mkdir /etc/claude-code && cp -R \"$0/.\" /etc/claude-code";

/// The command with this text in this file of Claude Code's managed folder, and without the machine's other settings. Prints a
/// message and returns `None` without the right to mount.
pub fn managed(command: &Command, place: &Path, file: &str, text: &str) -> Option<Command> {
    let folder = place.join("managed");
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
    fs::write(folder.join(file), text).unwrap();
    with_mounts(command, MANAGED, &folder)
}
