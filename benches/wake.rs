//! How long an idle session takes to wake, with a message of ours and by itself, and how long a script's one takes from start to
//! end: `cargo bench --bench wake`.
//!
//! Method of the first: one real, idle, interactive session of Claude Code against the stand-in model, in namespaces of its
//! own as in `tests/claude`. Its hooks (`SessionStart` and `Stop`, `asyncRewake`) are a shell that waits on a pipe and exits
//! 2. A time runs from the end of that process, as the kernel tells it, until the first bytes of the request to the model
//! have been read; the request must hold what the hook said. That is the client's own floor; it is higher where hooks run at
//! the prompt, which a wake is, too. Then, in the same run, the same for a message: with our hooks, from just before the call
//! of `send_message` is written to another session's MCP server.
//!
//! Method of the second: `claude -p` with one prompt, which is answered at once, from just before it is started to its end; in
//! turns with our MCP server alone, with our hooks, and with them while a message waits, which it must show its model.
//!
//! On a busy machine, real-time priority (`chrt -r 1 cargo bench --bench wake`) shows what a quiet one would.

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

/// How often a session is woken.
const WAKES: usize = 50;
/// How often a script runs, in each way.
const SCRIPTS: usize = 10;

fn main() {
    let claude = program::installed().unwrap().expect("npm is installed");
    if !alone::is() {
        let Err(why) = alone::become_so();
        panic!("{why}");
    }
    println!("| figure | measured |\n|---|---|");
    row("Claude Code: hook ended → model asked", floor(&claude, &json!([])));
    let command = |command: &str| json!({"type": "command", "command": command});
    let ours = |word: &str| command(&format!("exec {} hook {word}", env!("CARGO_BIN_EXE_claude-peers")));
    let mut waits = ours("TurnStart");
    waits["asyncRewake"] = json!(true);
    let at_prompt = |hooks: &[Value]| floor(&claude, &json!([{"hooks": hooks}]));
    row("the same beside a `UserPromptSubmit` hook that does nothing", at_prompt(&[command("true")]));
    row("the same beside our two `UserPromptSubmit` hooks, nothing waiting", at_prompt(&[ours("UserPromptSubmit"), waits]));
    row("message sent → idle session's model asked", messages(&claude));
    for (figure, samples) in scripts(&claude) {
        row(figure, samples);
    }
}

fn row(figure: &str, mut samples: Vec<Duration>) {
    samples.sort_unstable();
    let times = samples.len();
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1_000.0);
    println!("| {figure}, {times} times, median | {} |", ms(samples[times / 2]));
    println!("| {figure}, best and worst | {}, {} |", ms(samples[0]), ms(samples[times - 1]));
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

/// From the start of `claude -p` to its end: with our MCP server alone, with our hooks, and with them while a message waits.
fn scripts(claude: &Path) -> [(&'static str, Vec<Duration>); 3] {
    let (plain, hooked) = (World::new(claude), World::hooked(claude));
    let mut figures = [
        ("`claude -p` from start to end, without hooks", Vec::new()),
        ("the same with hooks", Vec::new()),
        ("the same with hooks and a message waiting", Vec::new()),
    ];
    let mut ids = (0..).map(|number| format!("00000000-0000-4000-8000-{number:012}"));
    for _ in 0..SCRIPTS {
        figures[0].1.push(script(&plain, &ids.next().unwrap()));
        figures[1].1.push(script(&hooked, &ids.next().unwrap()));
        // A hook does not wait for a broker that is busy: then the message is not shown, and the next one is looked at.
        let with_message = ids.by_ref().find_map(|id| {
            // The session was there before, under this id.
            let mut before = Session::pulling(&hooked.broker(), &hooked.directory("job"), &id);
            let peer = before.id();
            before.close();
            let said = format!("This is for {id}.");
            assert!(hooked.broker().cli(&["send", &peer, &said]).output().unwrap().status.success());
            let time = script(&hooked, &id);
            hooked.model.requests("job").last().is_some_and(|request| request.news().contains(&said)).then_some(time)
        });
        figures[2].1.extend(with_message);
    }
    figures
}

/// From the start of `claude -p` with this session id to its end.
fn script(world: &World, id: &str) -> Duration {
    let begun = Instant::now();
    let output = world.print("job", "Go on.", &["--session-id", id]);
    let time = begun.elapsed();
    assert!(output.status.success(), "{output:?}");
    world.deserted();
    time
}
