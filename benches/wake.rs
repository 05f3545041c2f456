//! How long an idle session takes to wake, with a message of ours and by itself: `cargo bench --bench wake`.
//!
//! Method: one real, idle, interactive session of Claude Code against the stand-in model, in namespaces of its own as in
//! `tests/claude`. Its hooks (`SessionStart` and `Stop`, `asyncRewake`) are a shell that waits on a pipe and exits 2. A time
//! runs from the end of that process, as the kernel tells it, until the first bytes of the request to the model have been read;
//! the request must hold what the hook said. That is the client's own floor. Then, in the same run, the same for a message:
//! with our hooks, from just before the call of `send_message` is written to another session's MCP server. On a busy machine,
//! real-time priority (`chrt -r 1 cargo bench --bench wake`) shows what a quiet one would.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]
#![allow(dead_code, unused_imports, reason = "shares the tests' support code")]

#[path = "../tests/claude/alone.rs"]
mod alone;
#[path = "../tests/claude/model.rs"]
mod model;
#[path = "../tests/claude/program.rs"]
mod program;
#[path = "../tests/claude/session.rs"]
mod session;
#[path = "../tests/suite/support/mod.rs"]
mod support;
#[path = "../tests/claude/world.rs"]
mod world;

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::{Value, json};
use session::Claude;
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use support::Session;
use world::World;

/// Samples.
const WAKES: usize = 50;

fn main() {
    let claude = program::installed().unwrap().expect("npm is installed");
    if !alone::is() {
        let Err(why) = alone::become_so();
        panic!("{why}");
    }
    println!("| figure | measured |\n|---|---|");
    row("Claude Code: hook ended → model asked", floor(&claude, &json!([])));
    let empty = json!([{"hooks": [{"type": "command", "command": "true"}]}]);
    row("the same beside a `UserPromptSubmit` hook that does nothing", floor(&claude, &empty));
    row("message sent → idle session's model asked", messages(&claude));
}

fn row(figure: &str, mut samples: Vec<Duration>) {
    samples.sort_unstable();
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1_000.0);
    println!("| {figure}, {WAKES} times, median | {} |", ms(samples[WAKES / 2]));
    println!("| {figure}, best and worst | {}, {} |", ms(samples[0]), ms(samples[WAKES - 1]));
}

/// From the end of a hook that does nothing but wake to the request to the model. A wake runs the hooks at the prompt, too.
fn floor(claude: &Path, at_prompt: &Value) -> Vec<Duration> {
    let pipes = support::folder();
    let (tells, hears) = (pipes.path().join("pid"), pipes.path().join("go"));
    assert!(Command::new("mkfifo").args([&tells, &hears]).status().unwrap().success());
    let script =
        format!("echo $$ >{}; read number <{}; echo \"This is wake $number.\" >&2; exit 2", tells.display(), hears.display());
    let hook = json!([{"hooks": [{"type": "command", "command": script, "asyncRewake": true, "timeout": 86_400}]}]);
    let world = World::with(claude, &json!({"SessionStart": hook, "Stop": hook, "UserPromptSubmit": at_prompt}));
    let ada = Claude::start(&world, "ada");
    (0..WAKES)
        .map(|number| {
            // Says who waits; the turn that the last one began is over then, and another waits instead.
            let pid: i32 = fs::read_to_string(&tells).unwrap().trim().parse().unwrap();
            ada.idle();
            let waiter = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
            fs::write(&hears, format!("{number}\n")).unwrap();
            poll(&mut [PollFd::new(&waiter, PollFlags::IN)], None).unwrap();
            let ended = Instant::now();
            let said = format!("This is wake {number}.");
            let request = world.model.request("ada", &said, |request| request.news().contains(&said));
            request.at.saturating_duration_since(ended)
        })
        .collect()
}

/// From the call of `send_message` to the request of an idle session to its model.
fn messages(claude: &Path) -> Vec<Duration> {
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    // One sender may say 30 at once.
    let sender = |name: &str| Session::pulling(&world.broker(), &world.directory(name), name);
    let mut senders = ["ada", "eve"].map(sender);
    (0..WAKES)
        .map(|number| {
            bob.reached();
            bob.idle();
            let said = format!("This is message {number}.");
            let call = json!({"name": "send_message", "arguments": {"targetPeerId": "bob", "message": said}});
            let ada = &mut senders[number % 2];
            let begun = Instant::now();
            let id = ada.ask("tools/call", call);
            let request = world.model.request("bob", &said, |request| request.news().contains(&said));
            assert_ne!(ada.answer(id)["isError"], true);
            request.at.saturating_duration_since(begun)
        })
        .collect()
}
