//! Whether the user of Codex's daemon is there.

use crate::{agents::names::CODEX, platform::process};
use std::path::Path;

/// Whether a Codex of this user runs in a terminal. The daemon tells neither who shows which thread, nor when a terminal is closed, so all
/// its threads count as attended while any terminal is open.
pub fn has_terminal() -> bool {
    let is_codex = |pid: &u32| {
        let words = process::command_line(*pid);
        words.first().is_some_and(|word| Path::new(word).file_name() == Some(CODEX.program.as_ref()))
    };
    process::own_in_terminals().is_none_or(|mut pids| pids.any(|pid| is_codex(&pid)))
}
