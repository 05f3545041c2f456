//! Whether the user of a thread in Codex's daemon is there.

use super::home;
use crate::{platform::process, wire::Process};

/// Whether a Codex in a terminal uses the daemon that has started this process. The daemon tells neither which terminal shows which
/// thread, nor when one is closed, so all its threads count as attended while any terminal is open. So do they where
/// processes cannot be listed.
pub fn has_terminal(server: &Process) -> bool {
    let is_codex = |pid: &u32| home::is_codex(&process::command_line(*pid));
    let Some(daemon) = process::ancestors(server.pid).into_iter().find(is_codex) else { return true };
    let (folder, Some(mut pids)) = (home::of(daemon), process::own_in_terminals()) else { return true };
    let is_another = |pid: u32| home::of(pid).is_some_and(|other| folder.as_ref().is_some_and(|folder| *folder != other));
    pids.any(|pid| is_codex(&pid) && !is_another(pid))
}
