//! What a session of Claude Code does, from its own `sessions/PID.json`. The format is internal to Claude Code: what cannot be read is
//! unknown.

use crate::{
    platform::files,
    wire::{Activity, Doing, Timestamp, text::printable_line},
};
use serde::Deserialize;
use std::path::Path;

const MAX_FILE: u64 = 256 * 1024;
/// Most characters of what a session needs its user for.
const MAX_NEED: usize = 80;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    status: String,
    status_updated_at: Option<i64>,
    waiting_for: Option<String>,
}

/// What the file says; none if it says nothing that is known here.
pub fn read(file: &Path) -> Option<Activity> {
    let status: Status = serde_json::from_slice(&files::read_own(file, MAX_FILE).ok()?).ok()?;
    let doing = match status.status.as_str() {
        "idle" => Doing::Idle,
        "busy" | "shell" => Doing::Working,
        "waiting" => Doing::NeedsYou,
        _ => return None,
    };
    let need = |need: String| printable_line(&need).chars().take(MAX_NEED).collect();
    Some(Activity {
        doing,
        since: status.status_updated_at.map(Timestamp::from_millis),
        needs: status.waiting_for.filter(|_| doing == Doing::NeedsYou).map(need),
    })
}
