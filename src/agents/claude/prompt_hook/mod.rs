//! `claude-peers hook UserPromptSubmit`, which Claude Code runs at each prompt: it proves which messages a session has let in.
//!
//! Promises: it ends with exit code 0 and prints nothing. It ends within 50 ms of reading its input, whatever the broker does, and the
//! session does not wait for it. It tells the broker which messages the prompt holds, and facts of the session that only a hook has:
//! id, folder, permission mode. In a subagent it does nothing.
//!
//! Earlier versions installed hooks for other events, which sessions may still have: those read their input and do nothing.

mod input;

#[cfg(feature = "cli")]
use crate::agents::gemini;
use crate::{
    agents::broker,
    platform::settings::{self, InvalidSetting},
    wire::{Hook, PROCESS_SCHEME, SESSION_SCHEME},
};
pub(crate) use input::Input;
use std::{
    ffi::OsString,
    io,
    process::ExitCode,
    time::{Duration, Instant},
};

/// The event of our hook.
pub const EVENT: &str = "UserPromptSubmit";
/// How long the broker may take. The hook's own start and end take the rest of the 50 ms.
const PATIENCE: Duration = Duration::from_millis(30);

/// Runs the hook for the event in `words`. The session goes on even if this fails.
pub fn run(words: &[OsString]) -> ExitCode {
    match words {
        [word] if word == EVENT => prove(),
        #[cfg(feature = "cli")]
        [word] if word == gemini::hook::HOOK => gemini::hook::run(),
        // Claude Code must find a reader.
        _ => drop(io::copy(&mut io::stdin().lock(), &mut io::sink())),
    }
    ExitCode::SUCCESS
}

fn prove() {
    let (input, problem) = Input::read(io::stdin().lock());
    if input.agent_id.is_some() {
        return;
    }
    let is_token = |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let token = settings::text("CLAUDE_CODE_MESSAGING_TOKEN").ok().flatten().filter(is_token);
    // The broker can check the token even after the hook has ended.
    let session = token.map_or_else(process, |token| Ok(format!("{SESSION_SCHEME} {token}")));
    let known = input.session_id.filter(|id| !id.is_empty());
    let hook = Hook {
        event: EVENT.to_owned(),
        problem: session.as_ref().err().cloned().or(problem),
        session_id: known.or_else(|| settings::text("CLAUDE_CODE_SESSION_ID").ok()?),
        cwd: input.cwd,
        permission_mode: input.permission_mode,
        messages: input.prompt.map(|ids| ids.0).unwrap_or_default(),
        is_complete: false,
    };
    // If the broker is away or refuses, it learns of the session at the next prompt.
    drop(broker::tell(session.ok().as_deref(), "/v1/hook", &hook, Instant::now() + PATIENCE));
}

/// The session by its process, which clients without an inbox name.
fn process() -> Result<String, String> {
    const PID: &str = "CLAUDE_PID";
    let pid = settings::text(PID).map_err(|error| error.to_string())?;
    let pid = pid.ok_or_else(|| format!("{PID}, the process of the session, is not set"))?;
    match pid.trim().parse::<u32>() {
        Ok(pid) => Ok(format!("{PROCESS_SCHEME} {pid}")),
        Err(_) => Err(InvalidSetting::new(PID, pid, "a process id").to_string()),
    }
}
