//! The clock: messages expire and are ordered for people by it.

use super::{Finding, database::Looked, ok, scene::Scene, warning};
use crate::{console::out::span, platform::clock, wire::Timestamp};
use std::time::UNIX_EPOCH;

/// How far the clock may lie behind what it said before: small corrections are no trouble.
const SLACK_MS: i64 = 60_000;

pub fn check(scene: &Scene) -> Finding {
    let now = clock::now();
    let newest = match &scene.looked {
        Looked::Report(report) => report.newest_message_at.map(|at| (at, "the newest message was sent")),
        _ => None,
    };
    let started = scene.broker().map(|broker| (broker.started_at, "the broker was started"));
    let installed = std::env::current_exe().and_then(|me| me.metadata()?.modified()).ok();
    let installed = installed.and_then(|at| i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok());
    let installed = installed.map(|at| (Timestamp::from_millis(at), "this program was made"));
    let ahead = [newest, started, installed].into_iter().flatten().filter(|(at, _)| at.as_millis() - now.as_millis() > SLACK_MS);
    let Some((at, event)) = ahead.max_by_key(|(at, _)| *at) else { return ok(now.to_string()) };
    let late = span(u64::try_from((at.as_millis() - now.as_millis()) / 1_000).unwrap_or(0));
    warning(
        format!("it says {now}, which is {late} before {event} ({at}): it was set back, or was ahead then"),
        "set the clock (`timedatectl` shows whether it is synchronised); messages wait longer than they should until then",
    )
}
