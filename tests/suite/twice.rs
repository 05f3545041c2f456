//! Everything twice under one `claude`: the plugin beside what setup did brings two MCP servers and two sets of hooks. The session
//! stays one peer, either server serves it, and a message is handed over once.

use crate::support::{
    Broker, Session,
    broker::signal,
    eventually, folder,
    hooks::{Claude, Hook},
    mcp::Start,
};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, process::Command};

struct Scene {
    broker: Broker,
    place: tempfile::TempDir,
    claude: Claude,
    second: Session,
}

impl Scene {
    /// A session with two servers; the second came later and serves it.
    fn new() -> Self {
        let (broker, place) = (Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]), folder());
        let file = |name: &str| place.path().join(name).display().to_string();
        let (input, output, pid) = (file("in"), file("out"), file("pid"));
        assert!(Command::new("mkfifo").args([&input, &output]).status().unwrap().success());
        let start = Start { broker: &broker, directory: place.path(), session_id: "s-1", delivery: "", env: Vec::new() };
        // The second server begins when somebody opens the other ends of its pipes.
        let first = format!(r#""$SERVER" <'{input}' >'{output}' & echo $! >'{pid}';"#);
        let mut claude = Claude::launch(&start, &[], &first);
        claude.session.handshake();
        let connected = |claude: &Claude| claude.session.log().matches("connected as").count();
        eventually("the first server serves", || (connected(&claude) == 1).then_some(()));
        // What the test says goes through two programs that only pass it on.
        let mut relay = Command::new("sh");
        relay.args(["-c", r#"cat "$0" & exec cat >"$1""#, &output, &input]);
        let mut second = Session::spawn(relay);
        second.handshake();
        let scene = Self { broker, place, claude, second };
        eventually("the second serves, and the first knows", || {
            (connected(&scene.claude) == 2 && scene.displaced() == 1).then_some(())
        });
        scene
    }

    fn second_pid(&self) -> u32 {
        let file: PathBuf = self.place.path().join("pid");
        eventually("the second server runs", || fs::read_to_string(&file).ok()?.trim().parse().ok())
    }

    /// The one peer of this session.
    fn peer(&self) -> Value {
        let mut peers = peers(&self.broker);
        assert_eq!(peers.len(), 1, "{peers:?}");
        peers.remove(0)
    }

    fn send(&self, text: &str) -> Value {
        let id = self.peer()["id"].clone();
        self.broker.http().post("/v1/send", &json!({"to": id, "text": text})).json()["messageId"].clone()
    }

    /// How often a server was told that the other serves now: both write to the standard error of `claude`.
    fn displaced(&self) -> usize {
        self.claude.session.log().matches("another process serves this session now").count()
    }

    /// How often a server of this session has registered.
    fn registrations(&self) -> usize {
        self.broker.log().lines().filter(|line| line.contains(" registered")).count()
    }
}

const WAITING: &str = "hook: waiter connected";

fn peers(broker: &Broker) -> Vec<Value> {
    broker.http().get("/v1/peers?scope=machine").json()["peers"].as_array().unwrap().clone()
}

fn texts(messages: &[Value]) -> Vec<(&str, Option<&Value>)> {
    messages.iter().map(|message| (message["text"].as_str().unwrap(), message.get("repeat"))).collect()
}

#[test]
fn a_call_through_either_server_is_served_and_gets_the_mail_once() {
    let mut scene = Scene::new();
    let id = scene.peer()["id"].clone();
    assert_eq!(scene.registrations(), 2);
    const ROUNDS: usize = 5;
    for round in 0..ROUNDS {
        for first in [true, false] {
            let text = format!("{round} {first}");
            let sent = scene.send(&text);
            let (one, other) = (&mut scene.claude.session, &mut scene.second);
            let (one, other) = if first { (one, other) } else { (other, one) };
            assert_eq!(texts(&one.check()), [(text.as_str(), None)]);
            scene.broker.message_once("delivered", &sent);
            assert_eq!(json!(one.id()), id);
            assert_eq!(other.check(), [] as [Value; 0]);
            assert_eq!(scene.peer()["id"], id);
        }
    }
    // Whoever is called takes over, and nobody else ever does. One more for a call that came in the middle of such a change.
    let changes = 4 * ROUNDS;
    let registrations = scene.registrations();
    assert!(registrations <= 2 + changes + 2, "{registrations}: {}", scene.broker.log());
}

#[test]
fn a_call_that_waits_in_one_server_gets_its_message_though_the_other_serves_by_then() {
    let mut scene = Scene::new();
    let displaced = scene.displaced();
    let first = &mut scene.claude.session;
    let waits = first.ask("tools/call", json!({"name": "check_messages", "arguments": {"waitSeconds": 60}}));
    eventually("the first server serves", || (scene.displaced() > displaced).then_some(()));
    assert_eq!(json!(scene.second.id()), scene.peer()["id"]);
    let sent = scene.send("hello");
    let answer = scene.claude.session.answer(waits);
    assert_eq!(texts(answer["result"]["structuredContent"]["messages"].as_array().unwrap()), [("hello", None)], "{answer}");
    scene.broker.message_once("delivered", &sent);
    assert_eq!(scene.second.check(), [] as [Value; 0]);
}

#[test]
fn a_session_whose_second_server_is_gone_is_served_by_the_first_again() {
    let mut scene = Scene::new();
    let before = scene.peer();
    signal(scene.second_pid(), "KILL");
    // By itself: nobody calls it.
    eventually("the first server serves", || {
        (scene.registrations() == 3 && peers(&scene.broker).iter().any(|peer| peer["status"] == "connected")).then_some(())
    });
    assert_eq!(scene.peer()["id"], before["id"]);
    scene.send("hello");
    assert_eq!(texts(&scene.claude.session.check()), [("hello", None)]);

    // One that says goodbye takes the session off the list; the next call of the other brings it back.
    let Scene { broker, place: _place, mut claude, second } = Scene::new();
    let before = peers(&broker);
    second.close();
    eventually("the first server knows", || claude.session.log().contains("the session has ended").then_some(()));
    assert_eq!(json!(claude.session.id()), before[0]["id"]);
    assert_eq!(peers(&broker).len(), 1);
}

#[test]
fn after_a_restart_of_the_broker_one_of_them_serves_and_it_is_quiet() {
    let mut scene = Scene::new();
    let id = scene.peer()["id"].clone();
    for _ in 0..3 {
        let displaced = scene.displaced();
        scene.broker.restart();
        eventually("both are back", || (scene.displaced() > displaced).then_some(()));
        let sent = scene.send("hello");
        assert_eq!(texts(&scene.second.check()), [("hello", None)]);
        scene.broker.message_once("delivered", &sent);
        assert_eq!(scene.claude.session.check(), [] as [Value; 0]);
        assert_eq!(scene.peer()["id"], id);
    }
}

#[test]
fn of_two_sets_of_hooks_one_hands_over() {
    let scene = Scene::new();
    let both = |event: &str| [0, 1].map(|_| scene.claude.hook(event, "s-1", json!({"source": "startup"})));
    for event in ["SessionStart", "Stop", "Stop"] {
        let hooks = both(event);
        eventually("one waits and one has left", || (hooks[0].runs() != hooks[1].runs()).then_some(()));
        eventually("it is known to wait", || (scene.peer()["deliveryReason"] == WAITING).then_some(()));
        let (waits, left): (Vec<&Hook>, Vec<&Hook>) = hooks.iter().partition(|hook| hook.runs());
        left[0].left_silently();
        let sent = scene.send("wake up");
        assert_eq!(waits[0].woke().matches("\nwake up\n").count(), 1);
        assert_eq!(scene.broker.message_once("delivered", &sent)["route"], "hook");
    }
    for event in ["UserPromptSubmit", "PostToolUse", "PostToolUse"] {
        let sent = scene.send("look here");
        let said: Vec<String> = both(event).iter().map(|hook| hook.ended().stdout).collect();
        let silent = said.iter().filter(|said| said.is_empty()).count();
        assert_eq!((silent, said.concat().matches("look here").count()), (1, 1), "{said:?}");
        assert_eq!(scene.broker.message_once("delivered", &sent)["route"], "hook");
    }
}
