//! The clock: it decides when messages expire and in which order people see them.

use super::{
    finding::{Finding, ok, warning},
    scene::Scene,
};
use crate::{console::span, platform::clock, wire::Timestamp};
use std::time::UNIX_EPOCH;

/// Small corrections of the clock do no harm.
const SLACK_MS: i64 = 60_000;

pub fn check(scene: &Scene) -> Finding {
    let now = clock::now();
    let built = std::env::current_exe().and_then(|me| me.metadata()?.modified()).ok();
    let built =
        built.and_then(|at| i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()).map(Timestamp::from_millis);
    let events = [
        (scene.report.as_ref().ok().and_then(|report| report.newest_message_at), "the newest message was sent"),
        (scene.broker().map(|broker| broker.started_at), "the broker was started"),
        (built, "this program was made"),
    ];
    let ahead = events
        .into_iter()
        .filter_map(|(at, event)| Some((at?, event)))
        .filter(|(at, _)| at.as_millis() - now.as_millis() > SLACK_MS);
    let Some((at, event)) = ahead.max_by_key(|(at, _)| *at) else { return ok(now.to_string()) };
    let late = span(u64::try_from((at.as_millis() - now.as_millis()) / 1_000).unwrap_or(0));
    warning(
        format!("it says {now}, which is {late} before {event} ({at}): it was set back, or was ahead then"),
        "set the clock (`timedatectl` shows whether it is synchronised); until then messages wait longer than they should",
    )
}
