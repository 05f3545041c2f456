//! The command line in the shell of a session sends as that session.

use crate::support::{Broker, Session, events::Peer, eventually, folder, mcp::Start};
use serde_json::{Value, json};
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::PathBuf,
    process::Command,
};
use tempfile::TempDir;

/// A process named like Claude Code, with its MCP server and a shell that runs commands.
struct Agent {
    session: Session,
    orders: File,
    place: TempDir,
    runs: u32,
}

/// A running command.
struct Run {
    files: PathBuf,
}

impl Agent {
    fn start(broker: &Broker, name: &str) -> Self {
        let place = folder();
        let (directory, pipe) = (place.path().join(name), place.path().join("orders"));
        fs::create_dir(&directory).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // Opening only one end would wait for the other.
        let orders = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let start = Start { broker, directory: &directory, session_id: name, delivery: "pull", env: Vec::new() };
        let script = format!(r#"(while read -r order; do sh -c "$order"; done) <'{}' >/dev/null & "$SERVER""#, pipe.display());
        let mut session = Session::spawn(start.claude(&script, &[]));
        session.handshake();
        session.id();
        Self { session, orders, place, runs: 0 }
    }

    /// Starts the command line in its shell, with `before` in front of the command.
    fn begin(&mut self, before: &str, words: &str) -> Run {
        self.runs += 1;
        let files = self.place.path().join(format!("run-{}", self.runs));
        let (cli, at) = (env!("CARGO_BIN_EXE_claude-peers"), files.display());
        writeln!(self.orders, r#"{before} '{cli}' {words} >'{at}.out' 2>'{at}.err'; echo $? >'{at}.code'"#).unwrap();
        Run { files }
    }
}

impl Run {
    fn read(&self, kind: &str) -> String {
        fs::read_to_string(self.files.with_extension(kind)).unwrap_or_default()
    }

    /// Waits for it to succeed and returns its output.
    fn printed(&self) -> String {
        let code = eventually("the command ends", || self.read("code").trim().parse::<i32>().ok());
        assert_eq!(code, 0, "{}", self.read("err"));
        self.read("out")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.printed()).unwrap()
    }
}

#[test]
fn shell_of_a_session_sends_as_the_session() {
    let broker = Broker::start();
    let reader = Peer::register(&broker.http(), "reader", json!({"cwd": "/reader"}));
    let mut agent = Agent::start(&broker, "agent");
    let id = agent.session.id();
    for before in ["", "env -i", "env -u CLAUDE_CODE_SESSION_ID CLAUDECODE= CLAUDE_PEERS_DELIVERY=auto", "setsid -w"] {
        let socket = format!("CLAUDE_PEERS_SOCKET='{}'", broker.socket().display());
        let before = if before.starts_with("env") { format!("{before} {socket}") } else { format!("{socket} {before}") };
        let sent = agent.begin(&before, &format!("send reader 'hello {before:?}' --json").replace('"', "")).json();
        assert_eq!((&sent["from"], &sent["to"]), (&json!(id), &json!(reader.id)), "{before}");
    }
    let text = agent.begin("", "send reader 'for people'").printed();
    assert!(text.contains(&format!("to reader ({}), from the session {id}", reader.id)), "{text}");
    let everyone = agent.begin("", "send @machine 'hello all' --json").json();
    assert_eq!(everyone["receipts"].as_array().unwrap().len(), 1, "all but itself: {everyone}");

    let (_, outside) = broker.cli_json(&["send", "reader", "from the user"]);
    assert_eq!(outside["from"], "cli");
    let mut question = || {
        let sent = reader.over(&broker.http()).post("/v1/send", &json!({"to": id, "text": "ready?"})).json();
        agent.session.check();
        let words = format!("send reader yes --reply-to {} --json", sent["messageId"].as_str().unwrap());
        agent.begin("", &words).json()
    };
    assert_eq!(question()["from"], json!(id), "so it can answer");
}

#[test]
fn shell_of_a_session_reads_the_answer() {
    let broker = Broker::start();
    let mut agent = Agent::start(&broker, "agent");
    let place = folder();
    let mut worker = Session::pulling(&broker, place.path(), "worker");
    let (id, worker_id) = (agent.session.id(), worker.id());
    let asking = agent.begin("", &format!("ask {worker_id} 'which port?'"));
    let question = worker.tool("check_messages", json!({"waitSeconds": 60}))["messages"][0].clone();
    assert_eq!(question["from"]["id"], json!(id));
    let answer = |text: &str| json!({"targetPeerId": id, "message": text, "replyTo": question["id"]});
    let sent = worker.tool("send_message", answer("8080"));
    assert_eq!(asking.printed(), "8080\n");
    broker.message_once("delivered", &sent["messageId"]);
    assert!(agent.session.check().is_empty(), "shown once");

    let late = worker.tool("send_message", answer("or 8081"));
    assert_eq!(late["to"]["id"], json!(id), "nobody waits any more");
    assert_eq!(agent.session.check()[0]["text"], "or 8081");
}

#[test]
fn nested_agent_sends_as_itself() {
    let broker = Broker::start();
    Peer::register(&broker.http(), "reader", json!({"cwd": "/reader"}));
    let mut agent = Agent::start(&broker, "agent");
    let outer = agent.session.id();
    // Another agent, recognizable only because it has started an MCP server.
    let (server, cli) = (env!("CARGO_BIN_EXE_claude-peers-mcp"), env!("CARGO_BIN_EXE_claude-peers"));
    let directory = agent.place.path().join("visitor");
    fs::create_dir(&directory).unwrap();
    let before = format!(
        "cd '{}'; mkfifo in; '{server}' <in >/dev/null 2>&1 & exec 9>in; echo '{}' >&9; \
         until '{cli}' peers | grep -q visitor; do sleep 0.05; done;",
        directory.display(),
        initialize()
    );
    let sent = agent.begin(&before, "send reader hello --json").json();
    assert_ne!(sent["from"], json!(outer));
    assert_eq!(broker.message(&sent["messageId"])["fromName"], "visitor");
}

fn initialize() -> Value {
    let client = json!({"name": "other", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
}

#[test]
fn doorbell_needs_a_session_that_it_wakes() {
    let broker = Broker::start();
    let (code, outside) = broker.cli_json(&["doorbell", "--print"]);
    assert_eq!((code, &outside["error"]["code"]), (4, &json!("peer_not_found")));
    let mut agent = Agent::start(&broker, "shop");
    let run = agent.begin("", "doorbell --print");
    eventually("it ends", || (run.read("code").trim() == "1").then_some(()));
    assert_eq!(run.read("out"), "");
    assert!(run.read("err").contains("does not wake this agent"), "{}", run.read("err"));
}
