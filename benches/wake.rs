//! How long Claude Code itself takes to wake: `cargo bench --bench wake`.
//!
//! Method: one real, idle, interactive session of Claude Code against the stand-in model, in namespaces of its own as in
//! `tests/claude`. Its hooks (`SessionStart` and `Stop`, `asyncRewake`) are a shell that waits on a pipe and exits 2. A time
//! runs from the end of that process, as the kernel tells it, until the first bytes of the request to the model have been read;
//! the request must hold what the hook said. What a hook of ours takes is to be compared with this, on the same machine. On a busy
//! machine, real-time priority (`chrt -r 1 cargo bench --bench wake`) shows what a quiet one would.

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
use serde_json::json;
use session::Claude;
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
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
    let mut samples = floor(&claude);
    samples.sort_unstable();
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1_000.0);
    println!("| Claude Code: hook ended → model asked, {WAKES} times, median | {} |", ms(samples[WAKES / 2]));
    println!("| Claude Code: hook ended → model asked, best and worst | {}, {} |", ms(samples[0]), ms(samples[WAKES - 1]));
}

/// From the end of a hook that does nothing but wake to the request to the model.
fn floor(claude: &Path) -> Vec<Duration> {
    let pipes = support::folder();
    let (tells, hears) = (pipes.path().join("pid"), pipes.path().join("go"));
    assert!(Command::new("mkfifo").args([&tells, &hears]).status().unwrap().success());
    let script =
        format!("echo $$ >{}; read number <{}; echo \"This is wake $number.\" >&2; exit 2", tells.display(), hears.display());
    let hook = json!([{"hooks": [{"type": "command", "command": script, "asyncRewake": true, "timeout": 86_400}]}]);
    let world = World::with(claude, &json!({"SessionStart": hook, "Stop": hook}));
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
