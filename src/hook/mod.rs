//! What Claude Code's hooks run: `claude-peers hook EVENT`.
//!
//! Promises: a hook never breaks a session. What it cannot do it leaves alone, without a word to the model and with exit code 0;
//! a problem that a person should know goes to the broker's log, if the broker is there. It says only what is a message's, and
//! settles it as delivered once it is said; nothing is said inside a subagent. The short hooks are gone within milliseconds, and
//! within 50 ms of a broker that does not answer: no runtime, no command-line parser, one connection. The one that waits
//! holds a connection open, at no cost, and ends with its `claude` process.

mod beside;
mod broker;
mod ending;
mod host;
mod input;
mod waiter;

use crate::{settings, wire::Hook};
use broker::Broker;
use host::Host;
use input::{Input, Unread};
use std::{
    ffi::OsString,
    io,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

/// How long a hook waits for a broker that may be away or slow: with its own start and end it is out within 50 ms.
const PATIENCE: Duration = Duration::from_millis(40);
/// Most text taken at once, in bytes: of more, not all would find room in what a hook may say.
const MAX_BYTES: u32 = 9_000;
/// Length of the random name of a hand-over.
const LEASE_LENGTH: usize = 24;
/// Exit code 2 of an asynchronous hook wakes the session, which is shown what stands on standard error.
const WAKE: u8 = 2;

/// What our hooks are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A session begins, is resumed, cleared, compacted or forked.
    SessionStart,
    /// A turn has ended.
    Stop,
    /// A tool has been used.
    PostToolUse,
    /// The user says something, or a session is woken.
    UserPromptSubmit,
    /// The same again, for a hook that waits: should the turn that begins be interrupted, no other one begins to.
    TurnStart,
    /// A session ends, or is cleared.
    SessionEnd,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 6] =
        [Self::SessionStart, Self::Stop, Self::PostToolUse, Self::UserPromptSubmit, Self::TurnStart, Self::SessionEnd];

    /// Its name in Claude Code's settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::UserPromptSubmit | Self::TurnStart => "UserPromptSubmit",
            other => other.word(),
        }
    }

    /// What follows `claude-peers hook`.
    pub fn word(self) -> &'static str {
        match self {
            Self::SessionStart => "SessionStart",
            Self::Stop => "Stop",
            Self::PostToolUse => "PostToolUse",
            Self::UserPromptSubmit => "UserPromptSubmit",
            Self::TurnStart => "TurnStart",
            Self::SessionEnd => "SessionEnd",
        }
    }

    /// Whether its hook waits, beside the session.
    pub fn waits(self) -> bool {
        matches!(self, Self::SessionStart | Self::Stop | Self::TurnStart)
    }
}

/// Why a hook can do nothing, for a person.
type Problem = String;

/// Does what the hook of the event named `word` is to do.
pub fn run(word: OsString) -> ExitCode {
    let event = Event::ALL.into_iter().find(|event| word == event.word());
    let done = match event {
        Some(event) => act(event),
        None => {
            let known = Event::ALL.map(Event::word).join(", ");
            let what = format!("the event {:?} is unknown; there is {known}", word.to_string_lossy());
            // Whoever waits for its input to be read does not wait in vain.
            io::copy(&mut io::stdin(), &mut io::sink()).map_or_else(|e| Err(e.to_string()), |_| Err(what))
        }
    };
    done.unwrap_or_else(|problem| {
        report(&word.to_string_lossy(), problem);
        ExitCode::SUCCESS
    })
}

fn act(event: Event) -> Result<ExitCode, Problem> {
    let input = Input::read(io::stdin()).map_err(|error| format!("its input cannot be read: {error}"))?;
    let session = match input.unread {
        None => input.session_id.clone(),
        Some(_) => settings::text("CLAUDE_CODE_SESSION_ID").map_err(|e| e.to_string())?,
    };
    let session = session.filter(|id| !id.is_empty()).ok_or_else(|| "its input names no session".to_owned())?;
    let host = settings::parsed("CLAUDE_PID", "a process id", |text| text.parse().ok()).map_err(|e| e.to_string())?;
    let host = host.ok_or_else(|| "CLAUDE_PID, the process that runs the session, is not set".to_owned())?;
    let host = Host::of(host);
    // Without an input it may be a subagent's.
    if input.agent_id.is_some() || input.unread == Some(Unread::Empty) && event == Event::PostToolUse {
        return Ok(beside::pass(&host, event, true));
    }
    match event {
        Event::SessionStart | Event::Stop | Event::TurnStart => Ok(waiter::wait(&host, event, &input, session)),
        Event::PostToolUse | Event::UserPromptSubmit => Ok(beside::hand_over(&host, event)),
        Event::SessionEnd => Ok(ending::leave(&host, &input)),
    }
}

/// Whether Claude Code runs for a script, which waits for its end.
fn is_unattended() -> bool {
    let text = |variable| settings::text(variable).ok().flatten().unwrap_or_default();
    let is_sdk = text("CLAUDE_CODE_ENTRYPOINT").starts_with("sdk");
    is_sdk
        || text("CLAUDE_CODE_SESSION_ATTENDED") == "0"
            && !is_in_background(&text("CLAUDE_JOB_DIR"), &text("CLAUDE_CODE_SESSION_ID"))
}

/// Whether the session is one that Claude Code keeps in the background, which lives on like one in a terminal. Its job's folder
/// is named by the beginning of its id; what it runs itself (`claude -p`) inherits the folder and has another id.
fn is_in_background(job: &str, session: &str) -> bool {
    let name = Path::new(job).file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| session.starts_with(name))
}

/// Puts a problem into the broker's log, if the broker is there; else it is nobody's.
fn report(event: &str, problem: Problem) {
    let until = Instant::now() + PATIENCE;
    if let Ok(mut broker) = Broker::connect(None) {
        let hook = Hook { event: event.to_owned(), problem: Some(problem), subagent: false, unattended: false };
        drop(broker.post::<crate::wire::Hooked>("/v1/hook", &hook, Some(until)));
    }
}
