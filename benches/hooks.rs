//! What a hook costs, since it runs after every call of a tool in every session: `cargo bench --bench hooks`.
//!
//! Method: this program passes for Claude Code: it starts itself again under the name `claude`, starts a real MCP server, which
//! registers with a real broker, and then `claude-peers hook PostToolUse`, one at a time. A time runs from just before the process
//! is made until it has been waited for; `true` stands beside it for what any process costs here. The memory is the most that was
//! resident (`VmHWM`), shared pages and all, of a hook that has all but its answer: the broker is stopped meanwhile, and the hook
//! read until it ends.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]
#![allow(dead_code, unused_imports, reason = "shares the test suite's support code")]

#[path = "../tests/suite/support/mod.rs"]
mod support;

use serde_json::json;
use std::{
    fs,
    io::{Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use support::{Broker, broker::signal, eventually, mcp::Start};

/// Samples.
const RUNS: usize = 500;
/// Runs with a broker that does not answer.
const UNANSWERED: usize = 20;

fn main() {
    if std::env::args().next().is_some_and(|name| name == "claude") {
        return measure();
    }
    let me = std::env::current_exe().unwrap();
    assert!(Command::new(me).arg0("claude").status().unwrap().success());
}

fn measure() {
    let (broker, place) = (Broker::start(), support::folder());
    let start = Start { broker: &broker, directory: place.path(), session_id: "s-1", delivery: "", env: Vec::new() };
    let mut session = start.go();
    session.id();
    let hook = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claude-peers"));
        command.args(["hook", "PostToolUse"]).env("CLAUDE_PID", std::process::id().to_string()).envs(broker.env());
        command
    };
    assert_eq!(run(hook(), &input(0)).1, "", "nothing waits");
    eventually("the hook is known", || {
        session.tool("list_peers", json!({"scope": "machine"}))["self"]["deliveryReason"]
            .as_str()
            .filter(|reason| reason.starts_with("hook"))
            .map(drop)
    });

    println!("| figure | measured |\n|---|---|");
    row("`true`: start to end", &mut times(RUNS, || Command::new("true"), 2_000));
    row("PostToolUse, nothing waiting, 2 kB of input", &mut times(RUNS, hook, 2_000));
    row("PostToolUse, nothing waiting, 100 kB of input", &mut times(RUNS, hook, 100_000));
    row("PostToolUse, nothing waiting, 1 MB of input", &mut times(RUNS, hook, 1_000_000));
    signal(broker.pid(), "STOP");
    row("PostToolUse, a broker that does not answer", &mut times(UNANSWERED, hook, 2_000));
    let most = (0..UNANSWERED).map(|_| peak(start_with(hook(), &input(2_000)))).max().unwrap();
    signal(broker.pid(), "CONT");
    println!("| PostToolUse: memory at its peak, most of {UNANSWERED} | {:.2} MiB |", most as f64 / 1_024.0);
}

fn row(figure: &str, samples: &mut [Duration]) {
    samples.sort_unstable();
    let ms = |percent: usize| samples[samples.len() * percent / 100].as_secs_f64() * 1_000.0;
    println!("| {figure}, median (99th percentile) | {:.2} ms ({:.2} ms) |", ms(50), ms(99));
}

/// What Claude Code tells a hook of a tool that has given back so many bytes.
fn input(length: usize) -> String {
    let response = json!({"stdout": "x".repeat(length), "stderr": "", "interrupted": false});
    let input = json!({
        "session_id": "s-1", "transcript_path": "/t", "cwd": "/tmp", "hook_event_name": "PostToolUse", "tool_name": "Bash",
        "tool_input": {"command": "true"}, "tool_response": response,
    });
    input.to_string()
}

fn times(runs: usize, command: impl Fn() -> Command, length: usize) -> Vec<Duration> {
    let input = input(length);
    (0..runs).map(|_| run(command(), &input).0).collect()
}

/// How long it takes, and what it says.
fn run(command: Command, input: &str) -> (Duration, String) {
    let begun = Instant::now();
    let mut child = start_with(command, input);
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    (begun.elapsed(), said)
}

fn start_with(mut command: Command, input: &str) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // `true` may be gone before it has read anything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child
}

/// The most that was ever resident of it, in KiB, as far as it can be seen before its end.
fn peak(mut child: Child) -> u64 {
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        most = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0).max(most);
    }
    most
}
