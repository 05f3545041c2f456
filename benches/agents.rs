//! How soon a message reaches the model of an idle session of another agent than Claude Code: `cargo bench --bench agents`.
//!
//! Method: real, idle agents in terminals against the stand-in model, in namespaces of their own as in `tests/agents`. The time runs from
//! just before the broker is asked to send until the request to the session's model has been read. The floor is the agent's bare door: the
//! same text, handed by this program to the same inbox or plugin, timed from just before the connection. The two take turns, in one run.
//!
//! Or name some: `-- qwen pi`.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]
#![allow(dead_code, unused_imports, reason = "shares the tests' support code")]

#[path = "../tests/agents/agents.rs"]
mod agents;
#[path = "../tests/claude/alone.rs"]
mod alone;
#[path = "../tests/agents/install.rs"]
mod install;
#[path = "../tests/agents/model.rs"]
mod model;
#[path = "../tests/claude/program.rs"]
mod program;
#[path = "../tests/suite/support/mod.rs"]
mod support;
#[path = "../tests/agents/terminal.rs"]
mod terminal;
#[path = "../tests/agents/world.rs"]
mod world;

use agents::{AGENTS, Agent};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};
use support::events::Peer;
use terminal::Terminal;
use tokio::runtime::{Builder, Runtime};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};
use world::World;

/// How often a session is woken, in each way.
const WAKES: usize = 10;

/// How long a session is left alone to end its turn.
const CALM: Duration = Duration::from_secs(1);

/// The connection to Codex's daemon.
type Daemon = WebSocketStream<tokio::net::UnixStream>;

fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let is_named = |agent: &&Agent| named.is_empty() || named.iter().any(|name| name == agent.name);
    let agents = AGENTS
        .iter()
        .filter(|agent| agent.name != "claude" && agent.terminal.is_some_and(|terminal| terminal.has_door))
        .filter(is_named);
    let agents: Vec<_> = agents.map(|agent| (agent, install::installed(agent).unwrap())).collect();
    if !alone::is() {
        let Err(why) = alone::become_so();
        panic!("{why}");
    }
    println!("| agent | median | worst | bare door: median | worst |\n|---|---|---|---|---|");
    for (agent, program) in agents {
        row(agent, program);
    }
}

fn row(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let (http, other) = (world.broker.http(), Peer::register(&world.broker.http(), "other", json!({})));
    let terminal = Terminal::open(&world, "work");
    let peer = terminal.reached();
    let (mut sent, mut bare) = (Vec::new(), Vec::new());
    for number in 0..=WAKES {
        let text = format!("message {number} of the benchmark");
        let began = Instant::now();
        let id = other.over(&http).post("/v1/send", &json!({"to": peer["id"], "text": text})).json()["messageId"].clone();
        sent.push(world.model.arrived(&text) - began);
        world.broker.message_once("delivered", &id);
        std::thread::sleep(CALM);
        let text = format!("bare {number} of the benchmark");
        let began = Instant::now();
        if hand_over(&world, &peer, &text) {
            bare.push(world.model.arrived(&text) - began);
        }
        std::thread::sleep(CALM);
    }
    println!("| {} | {} | {} |", agent.name, figures(sent), figures(bare));
}

/// The median and the worst. The first is left out: the session had not worked yet.
fn figures(samples: Vec<Duration>) -> String {
    let mut samples: Vec<_> = samples.into_iter().skip(1).collect();
    samples.sort_unstable();
    let milliseconds = |sample: &Duration| format!("{:.0} ms", sample.as_secs_f64() * 1_000.0);
    let median = samples.get(samples.len() / 2).map(milliseconds);
    format!("{} | {}", median.unwrap_or("–".to_owned()), samples.last().map(milliseconds).unwrap_or("–".to_owned()))
}

/// Hands a text to the session's own door. False if this program does not speak with it.
fn hand_over(world: &World, peer: &Value, text: &str) -> bool {
    let doors = world.broker.socket().with_file_name("doors");
    let plugin = fs::read_dir(doors).ok().and_then(|mut doors| doors.next()?.ok());
    if let Some(plugin) = plugin {
        let mut door = BufReader::new(UnixStream::connect(plugin.path()).unwrap());
        let say = |line: Value| door.get_ref().write_all(format!("{line}\n").as_bytes()).unwrap();
        say(json!({"open": {"protocol": 1, "cwd": peer["cwd"]}}));
        say(json!({"show": {"frame": text, "title": "A benchmark", "text": text}}));
        let mut line = String::new();
        while !line.contains("shown") {
            line.clear();
            assert!(door.read_line(&mut line).unwrap() > 0, "the plugin has gone");
        }
        return true;
    }
    match world.agent.name {
        "codex" => codex(world, text),
        "qwen" => qwen(world, peer, text),
        _ => return false,
    }
    true
}

/// Starts a turn over a connection to the daemon that is kept.
fn codex(world: &World, text: &str) {
    static DOOR: Mutex<Option<(Runtime, Daemon, Value)>> = Mutex::new(None);
    let mut door = DOOR.lock().unwrap();
    let (runtime, daemon, thread) = door.get_or_insert_with(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let mut daemon = runtime.block_on(async {
            let socket = world.home().join(".codex/app-server-control/app-server-control.sock");
            let stream = tokio::net::UnixStream::connect(fs::canonicalize(socket).unwrap()).await.unwrap();
            ClientBuilder::new().uri("ws://localhost/").unwrap().connect_on(stream).await.unwrap().0
        });
        let client = json!({"clientInfo": {"name": "bench", "version": "0"}, "capabilities": {"experimentalApi": true}});
        runtime.block_on(call(&mut daemon, "initialize", client));
        let loaded = runtime.block_on(call(&mut daemon, "thread/loaded/list", json!({})));
        let mut threads = loaded["data"].as_array().unwrap().iter();
        let is_users = |thread: &&Value| {
            let read = runtime.block_on(call(&mut daemon, "thread/read", json!({"threadId": thread})));
            read["thread"]["threadSource"] == "user"
        };
        let thread = threads.find(is_users).unwrap().clone();
        (runtime, daemon, thread)
    });
    let context = json!({text: {"kind": "untrusted", "name": "bench", "value": text}});
    let input = json!([{"type": "text", "text": "A benchmark", "text_elements": []}]);
    let start = json!({"threadId": thread, "input": input, "additionalContext": context});
    runtime.block_on(call(daemon, "turn/start", start));
}

/// Calls the daemon, whose notifications are ignored. No two calls overlap, so they need no numbers.
async fn call(daemon: &mut Daemon, method: &str, params: Value) -> Value {
    let request = json!({"id": 1, "method": method, "params": params});
    daemon.send(Message::text(request.to_string())).await.unwrap();
    loop {
        let message = daemon.next().await.unwrap().unwrap();
        let mut message: Value = serde_json::from_str(message.as_text().unwrap_or("{}")).unwrap();
        if message["id"] == 1 && message["method"].is_null() {
            assert!(message["error"].is_null(), "{message}");
            return message["result"].take();
        }
    }
}

fn qwen(world: &World, peer: &Value, text: &str) {
    let environment = fs::read(format!("/proc/{}/environ", server(world))).unwrap();
    let variable = |name: &str| {
        let entry = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(format!("{name}=").as_bytes()));
        String::from_utf8(entry.unwrap().to_vec()).unwrap()
    };
    let record = fs::read(world.home().join(format!(".qwen/sessions/{}.json", peer["pid"]))).unwrap();
    let session = serde_json::from_slice::<Value>(&record).unwrap()["sessionId"].clone();
    let auth = json!({"msgV": 1, "type": "auth", "token": variable("QWEN_CODE_MESSAGING_TOKEN")});
    let id: String = text.split(' ').collect();
    let frame = json!({
        "msgV": 1, "msgId": id, "type": "user", "fromName": "a benchmark", "toSessionId": session, "priority": "next",
        "message": {"role": "user", "content": text},
    });
    let mut inbox = UnixStream::connect(variable("QWEN_CODE_MESSAGING_SOCKET")).unwrap();
    inbox.write_all(format!("{auth}\n{frame}\n").as_bytes()).unwrap();
    inbox.shutdown(Shutdown::Write).unwrap();
}

/// The process of our server beside the session.
fn server(world: &World) -> String {
    let home = format!("HOME={}", world.home().display());
    let is_it = |process: &PathBuf| {
        fs::read(process.join("cmdline")).is_ok_and(|line| line.ends_with(b"claude-peers-mcp\0"))
            && fs::read(process.join("environ")).is_ok_and(|environ| String::from_utf8_lossy(&environ).contains(&home))
    };
    let mut processes = fs::read_dir("/proc").unwrap().map(|process| process.unwrap().path());
    processes.find(is_it).unwrap().file_name().unwrap().to_string_lossy().into_owned()
}
