//! `claude-peers hook UserPromptSubmit`, which Claude Code runs beside each prompt: proof of what was let into a session.
//!
//! Promises: it always ends with exit code 0 and without a word. Once its input is read it is gone within 50 ms, whatever the broker
//! does, and the session does not wait for it. It tells the broker which messages the prompt holds, and what only a hook knows of
//! the session: its id, its folder, its permission mode. In a subagent it does nothing.
//!
//! Earlier versions put hooks for other events into Claude Code's settings. Sessions that still have them run
//! `claude-peers hook` with those events: that reads its input and does nothing.

mod broker;
mod input;

use crate::{
    platform::settings::{self, InvalidSetting},
    wire::Hook,
};
use broker::Session;
use input::{Input, Unread};
use std::{
    ffi::OsString,
    io,
    process::ExitCode,
    time::{Duration, Instant},
};

/// The one event that our hook is for.
pub const EVENT: &str = "UserPromptSubmit";
/// How long the broker may take: with its own start and end the hook is gone within 50 ms.
const PATIENCE: Duration = Duration::from_millis(30);

/// Does what the hook of the event in `words` is to do.
pub fn run(words: &[OsString]) -> ExitCode {
    // Whatever happens, the session goes on.
    match words {
        [word] if word == EVENT => prove(),
        // Whoever writes the input must find a reader.
        _ => drop(io::copy(&mut io::stdin().lock(), &mut io::sink())),
    }
    ExitCode::SUCCESS
}

fn prove() {
    let (input, unread) = Input::read(io::stdin().lock());
    if input.agent_id.is_some() {
        return;
    }
    let is_token = |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let token = settings::text("CLAUDE_CODE_MESSAGING_TOKEN").ok().flatten().filter(is_token);
    let session = token.map_or_else(process, |token| Ok(Session::Token(token)));
    let known = input.session_id.filter(|id| !id.is_empty());
    let hook = Hook {
        event: EVENT.to_owned(),
        problem: session.as_ref().err().cloned().or_else(|| unread.and_then(Unread::problem)),
        session_id: known.or_else(|| settings::text("CLAUDE_CODE_SESSION_ID").ok()?),
        cwd: input.cwd,
        permission_mode: input.permission_mode,
        messages: input.prompt.map(|ids| ids.0).unwrap_or_default(),
    };
    // A broker that is away or says no learns of the session with its next prompt.
    drop(broker::tell(session.ok().as_ref(), &hook, Instant::now() + PATIENCE));
}

/// The session, as clients without an inbox name it.
fn process() -> Result<Session, String> {
    const PID: &str = "CLAUDE_PID";
    let pid = settings::text(PID).map_err(|error| error.to_string())?;
    let pid = pid.ok_or_else(|| format!("{PID}, the process of the session, is not set"))?;
    pid.trim().parse().map(Session::Process).map_err(|_| InvalidSetting::new(PID, pid, "a process id").to_string())
}
