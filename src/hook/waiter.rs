//! The hook that waits beside a session, for as long as it lives: it hands over what comes, and its end wakes the session.
//!
//! Each turn's beginning and end start another one, and the broker sends the one before away. Where Claude Code is not
//! attended it waits for such hooks, and goes on when they have something to say: there this one leaves at once and without a
//! word, and what waits goes beside prompts and results of tools.

use super::{
    Event, Host, Input, LEASE_LENGTH, MAX_BYTES, WAKE, beside,
    broker::{Broker, Failed, pause},
    is_unattended,
};
use crate::{
    shown,
    wire::{Code, Route, Settle, Settled, Wait, WaitEnd, Waited, random_token},
};
use std::{
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

/// The first pause after a lost connection: a broker behind a waiting socket is back at once.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a wait must have lasted for its end to be a new trouble.
const LASTED: Duration = Duration::from_secs(1);
/// How long the broker may take to note what was handed over. What it misses is handed over again, marked as a repeat.
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);

/// Waits.
pub fn wait(host: &Host, event: Event, input: &Input, session: String) -> ExitCode {
    if is_unattended() {
        return beside::pass(host, event, false);
    }
    let host = host.watched();
    if !host.lives() {
        return ExitCode::SUCCESS;
    }
    let turn_ended = match event {
        // A compaction may come in the middle of a turn.
        Event::SessionStart => input.source.as_deref().is_some_and(|source| source != "compact"),
        // That a turn begins, the other hook at the prompt says, which is waited for. This one may come after a short turn's end.
        other => other == Event::Stop,
    };
    let mut request = Wait { lease: String::new(), session_id: Some(session), turn_ended, max_bytes: Some(MAX_BYTES) };
    let mut length = FIRST_PAUSE;
    loop {
        request.lease = random_token(LEASE_LENGTH);
        let begun = Instant::now();
        match wait_once(&host, &request) {
            Ok(woken) => return if woken { ExitCode::from(WAKE) } else { ExitCode::SUCCESS },
            Err(Failed::HostGone) => return ExitCode::SUCCESS,
            // One who does not belong to the session (any more), or speaks another version, will not be heard next time either.
            Err(Failed::Refused(error)) if !matches!(error.code, Code::Stopping | Code::Busy | Code::Internal) => {
                return ExitCode::SUCCESS;
            }
            Err(Failed::Refused(_) | Failed::Away) => {}
        }
        request.turn_ended = false; // who knows what has happened meanwhile
        if begun.elapsed() > LASTED {
            request.session_id = None; // it is known, and may be another by now
        }
        length = if begun.elapsed() > LASTED { FIRST_PAUSE } else { length };
        if pause(&host, spread(length)).is_err() {
            return ExitCode::SUCCESS;
        }
        length = (length * 2).min(LONGEST_PAUSE);
    }
}

/// Waits on one connection; whether messages were handed over.
fn wait_once(host: &Host, request: &Wait) -> Result<bool, Failed> {
    let mut broker = Broker::connect(Some(host))?;
    let Waited { end, messages, more } = broker.post("/v1/wait", request, None)?;
    let (text, settled) = match end {
        WaitEnd::Messages => shown::hook(messages, more),
        WaitEnd::Wake => (shown::HOOK_WAKE.to_owned(), Vec::new()),
        WaitEnd::Displaced | WaitEnd::Over => return Ok(false),
    };
    if !host.lives() {
        return Err(Failed::HostGone); // nobody would read it
    }
    let mut out = io::stderr().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).is_err() {
        return Ok(false);
    }
    if settled.is_empty() {
        return Ok(true);
    }
    let settle = Settle { route: Route::Hook, messages: settled };
    let until = Instant::now() + SETTLE_PATIENCE;
    let mut noted = broker.post::<Settled>("/v1/settle", &settle, Some(until));
    while matches!(noted, Err(Failed::Away)) && Instant::now() < until {
        pause(host, FIRST_PAUSE)?;
        noted = Broker::connect(Some(host)).and_then(|mut broker| broker.post("/v1/settle", &settle, Some(until)));
    }
    Ok(true)
}

/// `pause`, up to a quarter longer: those who lost the broker together do not all come back in the same moment.
fn spread(pause: Duration) -> Duration {
    let share = getrandom::u32().map_or(0.0, |random| f64::from(random) / f64::from(u32::MAX));
    pause.mul_f64(1.0 + share / 4.0)
}
