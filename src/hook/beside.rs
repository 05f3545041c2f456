//! The short hooks: what came in meanwhile is put beside the result of a tool, or beside a prompt.

use super::{
    Event, Host, LEASE_LENGTH, MAX_BYTES, PATIENCE,
    broker::{Broker, Failed},
    is_unattended,
};
use crate::{
    shown,
    wire::{Hook, Hooked, Route, Settle, Settled, Take, Taken, random_token},
};
use serde_json::json;
use std::{
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

/// How long the broker may take once it is known to be there and to have mail: taking and settling are commits to a disk.
const COMMIT_PATIENCE: Duration = Duration::from_secs(1);

/// Hands over what waits.
pub fn hand_over(host: &Host, event: Event) -> ExitCode {
    // Whatever the broker has against it: the session goes on, and what waits is handed over another time.
    let _ = ask(host, event);
    ExitCode::SUCCESS
}

/// Hands nothing over, and lets the broker know that hooks run here: others of them do.
pub fn pass(host: &Host, event: Event, subagent: bool) -> ExitCode {
    // Whatever the broker has against it, there is nothing to be done here.
    drop(Broker::connect(Some(host)).and_then(|mut broker| waiting(&mut broker, event, subagent)));
    ExitCode::SUCCESS
}

/// How many messages wait that this hook may hand over.
fn waiting(broker: &mut Broker<'_>, event: Event, subagent: bool) -> Result<u32, Failed> {
    let hook = Hook { event: event.name().to_owned(), problem: None, subagent, unattended: is_unattended() };
    let Hooked { waiting } = broker.post("/v1/hook", &hook, Some(Instant::now() + PATIENCE))?;
    Ok(waiting)
}

fn ask(host: &Host, event: Event) -> Result<(), Failed> {
    let mut broker = Broker::connect(Some(host))?;
    if waiting(&mut broker, event, false)? == 0 {
        return Ok(());
    }
    let until = || Some(Instant::now() + COMMIT_PATIENCE);
    let take = Take { lease: random_token(LEASE_LENGTH), route: Route::Hook, max_bytes: Some(MAX_BYTES), wait_seconds: None };
    let Taken { messages, more } = broker.post("/v1/take", &take, until())?;
    if messages.is_empty() {
        return Ok(());
    }
    let (text, settled) = shown::hook(messages, more);
    let output = json!({"hookSpecificOutput": {"hookEventName": event.name(), "additionalContext": text}});
    let mut out = io::stdout().lock();
    writeln!(out, "{output}").and_then(|()| out.flush())?;
    broker.post::<Settled>("/v1/settle", &Settle { route: Route::Hook, messages: settled }, until())?;
    Ok(())
}
