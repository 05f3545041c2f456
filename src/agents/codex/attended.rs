//! Whether the user of a thread in Codex's daemon is there.

use super::home;
use crate::{platform::process, wire::Process};

/// Whether a Codex in a terminal uses the daemon that has started this process. The daemon tells neither which terminal shows which
/// thread, nor when one is closed, so all its threads count as attended while any terminal is open. So do they where that cannot be seen.
pub fn has_terminal(server: &Process) -> bool {
    let is_codex = |pid: &u32| home::is_codex(&process::command_line(*pid));
    let Some(daemon) = process::ancestors(server.pid).into_iter().find(is_codex) else { return true };
    let (folder, Some(mut pids)) = (home::of(daemon), process::own_in_terminals()) else { return true };
    folder.is_none() || pids.any(|pid| is_codex(&pid) && home::of(pid) == folder)
}
