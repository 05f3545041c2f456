//! What messages cost beside a real Claude Code, and how soon they arrive: `cargo bench --bench inbox`.
//!
//! Method: real, idle, interactive sessions against the stand-in model, in namespaces of their own as in `tests/claude`. What is
//! compared is taken in turns, in one run.
//!
//! - *Message → model*: from just before the call of `send_message` is written to a peer's MCP server until the first bytes of the
//!   request to the woken session's model have been read. The floor is a bare write: the same frame, written by this program into
//!   the same inbox socket, timed from just before the connection. Another floor is the same write into a session without our hook.
//! - *`claude -p`*: one prompt that is answered at once, from just before the program is started to its end; without any MCP server,
//!   with one that has nothing to offer, and with ours and our hook.
//! - *Hook*: from just before the process is made until it has been waited for; `true` shows what any process costs here. The
//!   memory is the most that was resident (`VmHWM`), shared pages and all.
//! - *MCP server*: PSS beside an idle session, from `/proc/PID/smaps_rollup`.
//!
//! Or name some: `-- hooks wakes scripts`. On a busy machine, real-time priority (`chrt -r 1 cargo bench --bench inbox`) shows what a quiet one would.

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

use serde_json::json;
use session::Claude;
use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use support::{Session, broker::signal};
use world::World;

/// An MCP server that has nothing to offer: what Claude Code itself takes for one.
const NOTHING: &str = r#"$| = 1;
while (<STDIN>) {
    next unless /"id":("[^"]*"|\d+)/;
    my $id = $1;
    my $result = /"initialize"/ ? '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"nothing","version":"1"}}'
        : '{"tools":[]}';
    print /"initialize"|"tools\/list"/ ? qq({"jsonrpc":"2.0","id":$id,"result":$result}\n)
        : qq({"jsonrpc":"2.0","id":$id,"error":{"code":-32601,"message":"no such method"}}\n);
}
"#;
/// How often a session is woken, in each way.
const WAKES: usize = 50;
/// How often a script runs, in each way.
const SCRIPTS: usize = 20;
/// How often a hook runs.
const HOOKS: usize = 200;

fn main() {
    let claude = program::installed().unwrap().expect("npm is installed");
    if !alone::is() {
        let Err(why) = alone::become_so();
        panic!("{why}");
    }
    println!("| figure | median | 90 % | worst |\n|---|---|---|---|");
    let named: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    for (name, take) in [("hooks", hooks as fn(&Path)), ("wakes", wakes), ("scripts", scripts)] {
        if named.is_empty() || named.iter().any(|named| named == name) {
            take(&claude);
        }
    }
}

fn row(figure: &str, mut samples: Vec<Duration>) -> f64 {
    samples.sort_unstable();
    let ms = |percent: usize| samples[(samples.len() * percent / 100).min(samples.len() - 1)].as_secs_f64() * 1_000.0;
    println!("| {figure}, {} times | {:.1} ms | {:.1} ms | {:.1} ms |", samples.len(), ms(50), ms(90), ms(100));
    ms(50)
}

/// Writes a frame into a session's inbox as a bare client would; each from another sender, as the client limits the rate of one.
fn bare(session: &Claude, number: usize, text: &str) {
    let path = session.status().unwrap()["messagingSocketPath"].as_str().unwrap().to_owned();
    let from = format!("uds:/tmp/bare-{number}.sock");
    let content = format!("<cross-session-message from=\"{from}\" from-name=\"bare\">\n{text}\n</cross-session-message>");
    let id = format!("00000000-0000-4000-8000-{number:012}");
    let frame = json!({"type": "user", "message": {"role": "user", "content": content}, "msgV": 1, "msg_id": id, "priority": "next", "from": from});
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(format!("{frame}\n").as_bytes()).unwrap();
}

fn wakes(claude: &Path) {
    let (plain, hooked) = (World::new(claude), World::hooked(claude));
    let (eve, bob) = (Claude::start(&plain, "eve"), Claude::start(&hooked, "bob"));
    bob.reached();
    // One sender may say 30 at once.
    let mut senders = ["ada", "mia"].map(|name| Session::pulling(&hooked.broker(), &hooked.directory(name), name));
    let mut times = [(); 3].map(|()| Vec::new());
    for number in 0..WAKES {
        for (way, times) in times.iter_mut().enumerate() {
            let (world, session) = if way == 0 { (&plain, &eve) } else { (&hooked, &bob) };
            let name = if way == 0 { "eve" } else { "bob" };
            session.idle();
            let said = format!("This is number {number} of way {way}.");
            let begun = Instant::now();
            let asked = match way {
                2 => {
                    let call = json!({"name": "send_message", "arguments": {"targetPeerId": "bob", "message": said}});
                    Some(senders[number % 2].ask("tools/call", call))
                }
                _ => {
                    bare(session, 2 * number + way, &said);
                    None
                }
            };
            let request = world.model.request(name, &said, |request| request.news().contains(&said));
            times.push(request.at.saturating_duration_since(begun));
            if let Some(id) = asked {
                let answer = senders[number % 2].answer(id);
                world.let_in(&answer["result"]["structuredContent"]["messageId"]);
            }
        }
    }
    let [alone, floor, ours] = times;
    let alone = row("bare write → idle session's model asked, without our hook", alone);
    let floor = row("bare write → idle session's model asked, with our hook", floor);
    let ours = row("`send_message` written → idle session's model asked", ours);
    println!("| our hook on a prompt, difference of medians | {:.1} ms | | |", floor - alone);
    println!("| our message against a bare write, difference of medians | {:.1} ms | | |", ours - floor);
    let processes = hooked.processes();
    let ours: Vec<&String> = processes.iter().filter(|process| process.contains("claude-peers")).collect();
    let servers: Vec<u64> =
        ours.iter().filter(|process| process.contains("claude-peers-mcp")).map(|process| pss(process)).collect();
    println!(
        "| our processes beside an idle session, and its MCP server's memory (PSS) | {} and {:.2} MiB | | |",
        ours.len() - 2,
        *servers.iter().max().unwrap() as f64 / 1_024.0
    ); // two are the senders'
}

/// The memory of a process by its line, in KiB.
fn pss(process: &str) -> u64 {
    let pid = process.split(' ').next().unwrap();
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn scripts(claude: &Path) {
    let worlds = [World::bare(claude, &json!({})), World::bare(claude, &json!({})), World::hooked(claude)];
    let server = worlds[1].home().join("nothing");
    fs::write(&server, NOTHING).unwrap();
    worlds[1].claude(&["mcp", "add", "--scope", "user", "nothing", "--", "perl", server.to_str().unwrap()]);
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let script = |world: &World| {
        let begun = Instant::now();
        let output = world.print("job", "Go on.", &[]);
        let time = begun.elapsed();
        assert!(output.status.success(), "{output:?}");
        world.deserted();
        time
    };
    for _ in 0..SCRIPTS {
        worlds.iter().zip(&mut times).for_each(|(world, times)| times.push(script(world)));
    }
    let [without, nothing, with] = times;
    let without = row("`claude -p` from start to end, without any MCP server", without);
    let nothing = row("the same with an MCP server that has no tools", nothing);
    let with = row("the same with our MCP server and hook", with);
    println!(
        "| ours against none, and against one that has no tools, differences of medians | {:.1} ms, {:.1} ms | | |",
        with - without,
        with - nothing
    );
}

fn hooks(claude: &Path) {
    let world = World::bare(claude, &json!({}));
    let hook = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claude-peers"));
        command.args(["hook", "UserPromptSubmit"]).env("CLAUDE_CODE_MESSAGING_TOKEN", "nobody's").envs(world.broker().env());
        command
    };
    let (short, long) = (input(200), input(200_000));
    let times = |count: usize, input: &str| (0..count).map(|_| run(hook(), input)).collect();
    row("`true`: start to end", (0..HOOKS).map(|_| run(Command::new("true"), &short)).collect());
    row("prompt hook", times(HOOKS, &short));
    row("prompt hook, 200 kB of prompt", times(HOOKS, &long));
    signal(world.broker().pid(), "STOP");
    row("prompt hook, a broker that does not answer", times(HOOKS / 10, &short));
    row("prompt hook, a broker that does not answer, 200 kB of prompt", times(HOOKS / 10, &long));
    let most = (0..HOOKS / 10).map(|_| peak(start(hook(), &long))).max().unwrap();
    let usual = (0..HOOKS / 10).map(|_| peak(start(hook(), &short))).max().unwrap();
    signal(world.broker().pid(), "CONT");
    println!(
        "| prompt hook: memory at its peak, with 200 bytes and 200 kB of prompt | {:.2}, {:.2} MiB | | |",
        usual as f64 / 1_024.0,
        most as f64 / 1_024.0
    );
}

/// What Claude Code tells the hook of a prompt with so many bytes.
fn input(length: usize) -> String {
    let prompt = format!("{}\nid m1-abcdef · sent now", "x".repeat(length));
    json!({"session_id": "s-1", "transcript_path": "/t", "cwd": "/tmp", "hook_event_name": "UserPromptSubmit", "prompt": prompt})
        .to_string()
}

fn run(command: Command, input: &str) -> Duration {
    let begun = Instant::now();
    assert!(start(command, input).wait().unwrap().success());
    begun.elapsed()
}

fn start(mut command: Command, input: &str) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
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
