//! Common uses of claude-peers as stories, and common faults, which are reported clearly.

use crate::support::{Broker, Session, eventually, folder, git, mcp::Start};
use serde_json::{Value, json};
use std::{fs, net::TcpListener, path::PathBuf};
use tempfile::TempDir;

/// A broker and repositories for its sessions.
struct Desk {
    broker: Broker,
    place: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { broker: Broker::start(), place: folder() }
    }

    fn repository(&self, name: &str) -> PathBuf {
        let directory = self.place.path().join(name);
        git::repository(&directory);
        directory
    }

    /// A session with an open channel, in a repository with its name.
    fn session(&self, name: &str) -> Session {
        let mut session = Session::start(&self.broker, &self.repository(name), name);
        session.id();
        session
    }
}

fn list(session: &mut Session, scope: &str) -> Vec<Value> {
    session.tool("list_peers", json!({"scope": scope}))["peers"].as_array().unwrap().clone()
}

/// Answers a push as the instructions say: to its `from_id`, with its `message_id`.
fn answer(session: &mut Session, push: &Value, text: &str) -> Value {
    let meta = &push["meta"];
    session.tool("send_message", json!({"targetPeerId": meta["from_id"], "message": text, "replyTo": meta["message_id"]}))
}

#[test]
fn cross_project_coordination() {
    let desk = Desk::new();
    let shop = desk.repository("shop");
    for part in ["frontend", "backend"] {
        fs::create_dir(shop.join(part)).unwrap();
    }
    let mut frontend = Session::start(&desk.broker, &shop.join("frontend"), "frontend");
    let mut backend = Session::start(&desk.broker, &shop.join("backend"), "backend");
    let _elsewhere = desk.session("elsewhere");
    backend.tool("set_summary", json!({"summary": "Working on the API: user schema"}));

    let peers = list(&mut frontend, "repo");
    assert_eq!(peers.len(), 1, "only who works on the same repository: {peers:?}");
    assert!(peers[0]["summary"].as_str().unwrap().contains("schema"));
    let question = frontend.send(peers[0]["id"].as_str().unwrap(), "Did the user schema change?");

    let asked = backend.pushed();
    assert_eq!(
        (&asked["content"], &asked["meta"]["message_id"]),
        (&json!("Did the user schema change?"), &question["messageId"])
    );
    assert_eq!(asked["meta"]["from_cwd"], shop.join("frontend").to_str().unwrap());
    answer(&mut backend, &asked, "Yes: email is now unique.");

    let answered = frontend.pushed();
    assert_eq!(
        (&answered["content"], &answered["meta"]["reply_to"]),
        (&json!("Yes: email is now unique."), &question["messageId"])
    );
    assert_eq!(desk.broker.message(&question["messageId"])["state"], "delivered");
}

#[test]
fn avoiding_merge_conflicts() {
    let desk = Desk::new();
    let app = desk.repository("app");
    git::git(&app, &["worktree", "add", "-q", "../app-login", "-b", "login"]);
    let mut main = Session::start(&desk.broker, &app, "main");
    let mut login = Session::start(&desk.broker, &desk.place.path().join("app-login"), "login");
    login.tool("set_summary", json!({"summary": "Refactoring auth.ts"}));

    let peers = list(&mut main, "repo");
    assert_eq!((&peers[0]["summary"], &peers[0]["gitBranch"]), (&json!("Refactoring auth.ts"), &json!("login")));
    main.send(peers[0]["name"].as_str().unwrap(), "May I edit auth.ts?");
    let asked = login.pushed();
    answer(&mut login, &asked, "Wait until I have pushed.");
    assert_eq!(main.pushed()["content"], "Wait until I have pushed.");
}

#[test]
fn status_broadcasting() {
    let desk = Desk::new();
    let mut deployer = desk.session("deployer");
    let mut others = ["api", "web", "docs"].map(|name| desk.session(name));
    let summary = "Deploying v2.1 – don't push to main";
    deployer.tool("set_summary", json!({"summary": summary}));
    for other in &mut others {
        let peers = list(other, "machine");
        let deployer = peers.iter().find(|peer| peer["name"] == "deployer").unwrap();
        assert_eq!(deployer["summary"], summary);
        let shown = other.call("list_peers", json!({"scope": "machine"}))["content"][0]["text"].as_str().unwrap().to_owned();
        assert!(shown.contains(summary), "{shown}");
    }
}

#[test]
fn debugging_across_services() {
    let desk = Desk::new();
    let (mut gateway, mut worker) = (desk.session("gateway"), desk.session("worker"));
    gateway.send("worker", "Please send me the last error in your log.");
    let asked = worker.pushed();
    let trace =
        "panicked at src/queue.rs:42:\n  <unknown> & \"quoted\"\n```\n   0: rust_begin_unwind\n   1: queue::<T>::pop\n```";
    answer(&mut worker, &asked, trace);
    assert_eq!(gateway.pushed()["content"], trace, "a stack trace arrives as it is");
}

#[test]
fn breaking_change() {
    let desk = Desk::new();
    let (mut library, mut app) = (desk.session("library"), desk.session("app"));
    let announced = library.send("app", "parse() now returns a Result.");
    let push = app.pushed();
    let follow_up = answer(&mut app, &push, "Acknowledged. Is there a deprecated alias?");
    let push = library.pushed();
    assert_eq!(push["meta"]["reply_to"], announced["messageId"]);
    let last = answer(&mut library, &push, "Yes, parse_unchecked().");
    assert_eq!(app.pushed()["meta"]["reply_to"], follow_up["messageId"]);

    let history = desk.broker.http().get("/v1/history").json()["messages"].as_array().unwrap().clone();
    let said: Vec<_> = history.iter().map(|entry| (&entry["messageId"], &entry["replyTo"])).collect();
    assert_eq!(
        said,
        [
            (&last["messageId"], &follow_up["messageId"]),
            (&follow_up["messageId"], &announced["messageId"]),
            (&announced["messageId"], &Value::Null),
        ],
        "the whole conversation, newest first"
    );
}

// --- faults ---

#[test]
fn tools_report_a_missing_broker_and_recover() {
    let (mut broker, place) = (Broker::prepared(&[]), folder());
    let mut session = Session::start(&broker, place.path(), "session-a");
    let calls = [
        ("list_peers", json!({"scope": "machine"})),
        ("send_message", json!({"to": "somebody", "message": "hello"})),
        ("set_summary", json!({"summary": "alone"})),
        ("check_messages", json!({"waitSeconds": 1})),
    ];
    // All at once, because each waits a moment for the broker before it gives up.
    let asked: Vec<u64> =
        calls.iter().map(|(tool, arguments)| session.ask("tools/call", json!({"name": tool, "arguments": arguments}))).collect();
    for (id, (tool, _)) in asked.into_iter().zip(&calls) {
        let result = session.answer(id)["result"].clone();
        assert_eq!(result["isError"], true, "{tool}: {result}");
        let said = result["content"][0]["text"].as_str().unwrap();
        for part in [
            "broker cannot be reached",
            broker.socket().to_str().unwrap(),
            "No such file",
            "claude-peers doctor",
            "claude-peers start",
        ] {
            assert!(said.contains(part), "{tool} says {part:?}: {said}");
        }
    }
    broker.launch();
    let me = session.list()["self"].clone();
    assert_eq!(me["status"], "connected", "nobody had to restart the session");
    broker.cli_json(&["send", me["id"].as_str().unwrap(), "welcome back"]);
    assert_eq!(session.pushed()["content"], "welcome back");
}

#[test]
fn every_tool_reports_an_invalid_setting() {
    let (broker, place) = (Broker::start(), folder());
    let relative = vec![("CLAUDE_PEERS_SOCKET".to_owned(), "broker.sock".to_owned())];
    for (delivery, env, parts) in [
        ("pigeon", Vec::new(), ["CLAUDE_PEERS_DELIVERY=\"pigeon\"", "auto, inbox, channel or pull"]),
        ("auto", relative, ["CLAUDE_PEERS_SOCKET=\"broker.sock\"", "an absolute path"]),
    ] {
        let mut session = Start { broker: &broker, directory: place.path(), session_id: "session-a", delivery, env }.go();
        let said = session.tool_error("list_peers", json!({"scope": "machine"}));
        assert!(parts.iter().all(|part| said.contains(part)) && said.contains("start the session again"), "{said}");
    }
}

#[test]
fn taken_port_stops_no_tool() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut broker, place) = (Broker::prepared(&[]), folder());
    broker.port = holder.local_addr().unwrap().port();
    broker.launch();
    let mut session = Session::start(&broker, place.path(), "session-a");
    assert!(session.peers().is_empty(), "the session is served all the same");

    let (code, status) = broker.cli_json(&["status"]);
    assert_eq!(code, 0);
    let tcp = status["broker"]["listeners"].as_array().unwrap().iter().find(|listener| listener["kind"] == "tcp").unwrap();
    assert_eq!(tcp["listening"], false);
    let problem = tcp["problem"].as_str().unwrap();
    let this_process = format!("process {} (", std::process::id());
    for part in [&format!("port {} is held by", broker.port), &this_process, "CLAUDE_PEERS_PORT"] {
        assert!(problem.contains(part), "{part:?} is not in {problem:?}");
    }
    let notices = status["broker"]["notices"].to_string();
    assert!(notices.contains(&this_process), "{notices}");
}

#[test]
fn sessions_outlive_a_damaged_database() {
    let (mut broker, place) = (Broker::start(), folder());
    let mut session = Session::pulling(&broker, place.path(), "session-a");
    session.id();
    assert!(broker.terminate().success());
    let mut damaged = fs::read(broker.database()).unwrap();
    damaged[..100].fill(0xa5);
    fs::write(broker.database(), &damaged).unwrap();
    broker.launch();

    let (_, status) = broker.cli_json(&["status"]);
    let notice = status["broker"]["notices"][0].as_str().unwrap().to_owned();
    assert!(notice.contains("was damaged") && notice.contains("set aside as"), "{notice}");
    let aside: Vec<PathBuf> = fs::read_dir(broker.folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains("peers.db.damaged-"))
        .collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(notice.contains(aside[0].to_str().unwrap()), "{notice} names {aside:?}");
    assert_eq!(fs::read(&aside[0]).unwrap(), damaged, "nothing of it is thrown away");

    let me = session.list()["self"].clone();
    broker.cli_json(&["send", me["id"].as_str().unwrap(), "hello again"]);
    assert_eq!(session.check()[0]["text"], "hello again");
}

#[test]
fn tools_say_why_a_message_does_not_arrive() {
    let desk = Desk::new();
    let mut asker = desk.session("asker");
    let mut deaf = Session::pulling(&desk.broker, &desk.repository("deaf"), "deaf");
    deaf.id();
    let peer = list(&mut asker, "machine").remove(0);
    assert_eq!((&peer["delivery"], &peer["status"]), (&json!("pull"), &json!("connected")));
    assert!(peer["deliveryReason"].as_str().unwrap().contains("asked for by CLAUDE_PEERS_DELIVERY"), "{peer}");

    let sent = asker.send("deaf", "hello?");
    assert_eq!(sent["state"], "queued");
    assert!(sent["warning"].as_str().unwrap().contains("it sees the message when it next uses one of its claude-peers tools"));
    let receipt = desk.broker.message(&sent["messageId"]);
    assert_eq!((&receipt["state"], receipt.get("deliveredAt")), (&json!("queued"), None), "nothing is claimed that is not so");
    assert_eq!(list(&mut asker, "machine")[0]["waiting"], 1);

    deaf.kill();
    eventually("it has left the list", || list(&mut asker, "machine").is_empty().then_some(()));
    let sent = asker.send("deaf", "still there?");
    assert!(
        sent["warning"].as_str().unwrap().starts_with("deaf is not running; the message waits for its session to be resumed")
    );
}
