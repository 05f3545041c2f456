//! The command line: text and JSON output, exit codes, and harmless display of text from peers.

use crate::support::{Broker, Session, events::Peer, folder, git};
use rustix::pipe::pipe;
use serde_json::{Value, json};
use std::{
    io::Write,
    process::{Command, Output, Stdio},
    thread,
};

/// A command's exit code and output.
struct Run {
    code: i32,
    out: String,
    err: String,
}

fn run(command: &mut Command) -> Run {
    let Output { status, stdout, stderr } = command.output().unwrap();
    Run { code: status.code().unwrap(), out: String::from_utf8(stdout).unwrap(), err: String::from_utf8(stderr).unwrap() }
}

/// Runs the command without `--json`; it must succeed and print nothing on standard error.
fn human(broker: &Broker, arguments: &[&str]) -> String {
    let Run { code, out, err } = run(&mut broker.cli(arguments));
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}: {out}");
    out
}

/// Runs the command with `--json`, which must succeed.
fn script(broker: &Broker, arguments: &[&str]) -> Value {
    let (code, json) = broker.cli_json(arguments);
    assert_eq!(code, 0, "{arguments:?}: {json}");
    json
}

#[test]
fn every_command_prints_text_and_json() {
    let (broker, place) = (Broker::start(), folder());
    let (web, api) = (place.path().join("web"), place.path().join("api"));
    git::repository(&web);
    git::repository(&api);
    let mut a = Session::pulling(&broker, &web, "session-a");
    let b = Session::pulling(&broker, &api, "session-b");
    let a_id = a.id();
    a.tool("set_summary", json!({"summary": "Checkout page"}));

    let text = human(&broker, &["status"]);
    for words in [
        format!("running, version {}, pid {}", env!("CARGO_PKG_VERSION"), broker.pid()),
        format!("unix {}, served", broker.socket().display()),
        format!("tcp 127.0.0.1:{}, served", broker.port),
        broker.database().display().to_string(),
        "Checkout page".to_owned(),
    ] {
        assert!(text.contains(&words), "{words}: {text}");
    }
    let status = script(&broker, &["status"]);
    assert_eq!((&status["broker"]["pid"], &status["broker"]["peers"]), (&json!(broker.pid()), &json!(2)));
    assert_eq!(status["peers"].as_array().unwrap().len(), 2);

    let text = human(&broker, &["peers"]);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..4], ["NAME", "ID", "STATUS", "DELIVERY"]);
    assert_eq!(
        (rows.len(), rows[1][0], rows[1][2], rows[2][..4].to_vec()),
        (3, "api", "connected", vec!["web", &a_id, "connected", "pull"])
    );
    let names = |scope: &str| {
        let listed = run(broker.cli(&["peers", "--json", "--scope", scope]).current_dir(&web));
        let peers: Value = serde_json::from_str(&listed.out).unwrap();
        peers["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("machine"), ["api", "web"]);
    assert_eq!((names("repo"), names("directory")), (vec!["web".to_owned()], vec!["web".to_owned()]));

    let text = human(&broker, &["send", "web", "is", "the", "build green?"]);
    assert!(
        text.contains("queued")
            && text.contains(&format!("to web ({a_id})"))
            && text.contains("warning: web cannot be interrupted"),
        "{text}"
    );
    let sent = script(&broker, &["send", &a_id, "second"]);
    let id = sent["messageId"].as_str().unwrap();
    assert_eq!((&sent["state"], &sent["toName"], &sent["from"]), (&json!("queued"), &json!("web"), &json!("cli")));
    let reply = script(&broker, &["send", "web", "a follow-up", "--reply-to", id]);
    assert_eq!(reply["replyTo"], id);
    let taken: Vec<Value> = a.check();
    let taken: Vec<_> = taken.iter().map(|message| message["text"].as_str().unwrap()).collect();
    assert_eq!(taken, ["is the build green?", "second", "a follow-up"]);
    assert!(a.check().is_empty());

    broker.message_once("delivered", &sent["messageId"]);
    let text = human(&broker, &["message", id]).split_whitespace().collect::<Vec<_>>().join(" ");
    let words = format!("message {id} from cli to web ({a_id}) state delivered, by check_messages sent 2");
    let (alone, thread) = text.split_once(" second Its conversation: MESSAGE SENT FROM TO STATE TEXT ").unwrap();
    assert!(alone.starts_with(&words), "{text}");
    let (first, second) = thread.split_once(" second ").unwrap();
    assert!(first.starts_with(id) && second.ends_with(" a follow-up"), "{text}");
    let message = script(&broker, &["message", id]);
    assert_eq!((&message["state"], &message["text"]), (&json!("delivered"), &json!("second")));
    let thread: Vec<_> = message["thread"].as_array().unwrap().iter().map(|entry| &entry["messageId"]).collect();
    assert_eq!(thread, [&sent["messageId"], &reply["messageId"]]);
    let asked = script(&broker, &["history", "--peer", "web"])["messages"][2]["messageId"].clone();
    assert_eq!(script(&broker, &["message", asked.as_str().unwrap()]).get("thread"), None, "nobody answered");

    let text = human(&broker, &["history"]);
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!((rows.len(), rows[0].starts_with("MESSAGE"), rows[1].ends_with("a follow-up")), (4, true, true), "{text}");
    let page = script(&broker, &["history", "--limit", "2"]);
    assert_eq!((page["messages"].as_array().unwrap().len(), page["messages"][1]["messageId"].as_str()), (2, Some(id)));
    let rest = script(&broker, &["history", "--before", page["next"].as_str().unwrap(), "--peer", "web"]);
    assert_eq!(rest["messages"][0]["text"], "is the build green?");
    assert_eq!(script(&broker, &["history", "--peer", "api"])["messages"], json!([]));
    drop(b);
}

#[test]
fn whoami_knows_the_session_it_runs_in() {
    let (broker, place) = (Broker::start(), folder());
    let mut session = Session::start(&broker, place.path(), "session-a");
    let id = session.id();
    let inside = run(broker.cli(&["whoami", "--json"]).env("CLAUDE_CODE_SESSION_ID", "session-a"));
    let me: Value = serde_json::from_str(&inside.out).unwrap();
    assert_eq!((inside.code, &me["id"], &me["cwd"]), (0, &json!(id), &json!(place.path())));
    let inside = run(broker.cli(&["whoami"]).env("CLAUDE_CODE_SESSION_ID", "session-a"));
    assert!(inside.code == 0 && inside.out.contains(&id) && inside.out.contains("channel: asked for by"), "{}", inside.out);
    for outside in [None, Some("session-z")] {
        let outside = run(broker.cli(&["whoami"]).envs(outside.map(|id| ("CLAUDE_CODE_SESSION_ID", id))));
        assert_eq!((outside.code, outside.out.as_str()), (4, ""));
        assert!(
            outside.err.contains("error: this process belongs to no session") && outside.err.contains("help: "),
            "{}",
            outside.err
        );
    }
}

#[test]
fn text_can_come_from_standard_input() {
    let broker = Broker::start();
    let peer = Peer::register(&broker.http(), "peer", json!({"cwd": "/peer"}));
    let with_input = |input: &[u8]| {
        let mut child =
            broker.cli(&["send", "peer", "-", "--json"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    for (input, text) in [
        ("one line\n", "one line"),
        ("two\nlines\n\n", "two\nlines\n"),
        ("no end", "no end"),
        (" \u{1f980} -\t", " \u{1f980} -\t"),
    ] {
        let (code, sent) = with_input(input.as_bytes());
        assert_eq!(code, 0, "{sent}");
        assert_eq!(script(&broker, &["message", sent["messageId"].as_str().unwrap()])["text"], text);
    }
    for (input, code, what) in [(&b""[..], 2, "empty_message"), (b"\n", 2, "empty_message"), (b"\xff\xfe", 2, "usage")] {
        let (exit, refused) = with_input(input);
        assert_eq!((exit, refused["error"]["code"].as_str()), (code, Some(what)), "{input:?}");
    }
    let (code, refused) = with_input("x".repeat(256 * 1024 + 1).as_bytes());
    assert_eq!((code, &refused["error"]["code"]), (5, &json!("too_large")));
    assert_eq!(script(&broker, &["send", &peer.id, "a", "-", "in", "between"])["state"], "queued");
}

#[test]
fn exit_code_tells_the_kind_of_failure() {
    let limits = [
        ("CLAUDE_PEERS_RATE_LIMIT", "1"),
        ("CLAUDE_PEERS_RATE_BURST", "4"),
        ("CLAUDE_PEERS_REPEAT_LIMIT", "2"),
        ("CLAUDE_PEERS_TEXT_LIMIT", "10"),
        ("CLAUDE_PEERS_WAITING_LIMIT", "3"),
    ];
    let broker = Broker::with(&limits);
    Peer::register(&broker.http(), "peer", json!({"cwd": "/peer"}));
    Peer::register(&broker.http(), "full", json!({"cwd": "/full"}));
    let cases: [(&[&str], i32, &str); 24] = [
        (&["send", "peer", "once"], 0, ""),
        (&["send", "peer", "once"], 0, ""),
        (&["send", "peer", "once"], 5, "repeat_limited"),
        (&["send", "peer", "2"], 0, ""),
        (&["send", "peer", "3"], 5, "mailbox_full"),
        (&["send", "full", "4"], 0, ""),
        (&["send", "full", "5"], 5, "rate_limited"),
        (&["send", "full", "much too long"], 5, "too_large"),
        (&["send", "cli", "x"], 5, "no_mailbox"),
        (&["send", "nobody", "x"], 4, "peer_not_found"),
        (&["send", "peer", " "], 2, "empty_message"),
        (&["send", "a/b", "x"], 2, "usage"),
        (&["send", "peer"], 2, "usage"),
        (&["send", "peer", "x", "--reply-to", "m01"], 2, "usage"),
        (&["send", "full", "x", "--reply-to", "m99-abcdef"], 5, "rate_limited"),
        (&["message", "m99-abcdef"], 4, "message_not_found"),
        (&["message", "nonsense"], 2, "usage"),
        (&["history", "--limit", "0"], 2, "usage"),
        (&["history", "--peer", "no body"], 2, "usage"),
        (&["peers", "--scope", "galaxy"], 2, "usage"),
        (&["whoami"], 4, "peer_not_found"),
        (&["frobnicate"], 2, "usage"),
        (&["--frobnicate"], 2, "usage"),
        (&["peers"], 0, ""),
    ];
    for (arguments, exit, code) in cases {
        let (given, json) = broker.cli_json(arguments);
        assert_eq!((given, json["error"]["code"].as_str().unwrap_or("")), (exit, code), "{arguments:?}: {json}");
        if exit != 0 {
            let said = run(&mut broker.cli(arguments));
            assert_eq!((said.code, said.out.as_str()), (exit, ""), "{arguments:?}");
            assert!(said.err.starts_with("error: "), "{arguments:?}: {}", said.err);
        }
    }
    let (_, limited) = broker.cli_json(&["send", "full", "6"]);
    assert!(limited["error"]["retryAfterMs"].as_u64().unwrap() > 0, "{limited}");
    for (arguments, exit) in [(&["--help"][..], 0), (&["--version"], 0), (&["send", "--help"], 0), (&[], 2)] {
        assert_eq!(run(&mut broker.cli(arguments)).code, exit, "{arguments:?}");
    }
}

#[test]
fn missing_broker_is_reported_with_a_fix() {
    let broker = Broker::prepared(&[]);
    for command in
        [&["status"][..], &["peers"], &["history"], &["message", "m1-abcdef"], &["whoami"], &["stop"], &["kill-broker"]]
    {
        let (code, json) = broker.cli_json(command);
        assert_eq!((code, &json["error"]["code"]), (3, &json!("unreachable")), "{command:?}");
    }
    let said = run(&mut broker.cli(&["status"]));
    assert!(said.err.contains(&format!("cannot be reached at {}", broker.socket().display())), "{}", said.err);
    assert!(said.err.contains("help: `claude-peers start` starts it; `claude-peers doctor` finds out why"), "{}", said.err);
}

#[test]
fn send_survives_a_broker_restart() {
    let mut broker = Broker::start();
    let peer = Peer::register(&broker.http(), "peer", json!({}));
    broker.kill();
    let sending: Vec<_> = (0..4)
        .map(|number| {
            let mut command = broker.cli(&["send", &peer.id, &format!("number {number}")]);
            thread::spawn(move || run(&mut command).code == 0)
        })
        .collect();
    broker.launch();
    assert!(sending.into_iter().all(|sending| sending.join().unwrap()));
    assert_eq!(broker.stored().0, 4);
}

#[test]
fn stop_returns_when_the_broker_is_gone() {
    for word in ["stop", "kill-broker"] {
        let mut broker = Broker::start();
        let stopped = script(&broker, &[word]);
        assert_eq!(
            (&stopped["ok"], &stopped["pid"], &stopped["startsAgain"]),
            (&json!(true), &json!(broker.pid()), &json!(false))
        );
        assert!(broker.wait().success());
        broker.launch();
        let text = human(&broker, &[word]);
        assert_eq!(text, format!("The broker (pid {}) has stopped.\n", broker.pid()));
        assert!(!broker.socket().exists());
    }
}

#[test]
fn text_from_peers_cannot_control_the_terminal() {
    let broker = Broker::start();
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{8}\r\u{202e}\u{200b}\u{2028}x\u{0}y";
    let facts = json!({"cwd": "/evil", "tty": "\u{1b}[5m", "git": {"commonDir": "/evil/.git", "head": "/evil/HEAD", "repo": evil, "branch": evil}});
    let peer = Peer::register(&broker.http(), "evil", facts);
    let as_peer = peer.over(&broker.http());
    as_peer.post("/v1/set-summary", &json!({"summary": evil, "source": "session"})).json();
    let other = Peer::register(&broker.http(), "other", json!({"sessionId": "session-a"}));
    let sent = as_peer.post("/v1/send", &json!({"to": other.id, "text": format!("{evil}\nsecond line")})).json();
    let other = other.over(&broker.http());
    other.post("/v1/set-summary", &json!({"summary": evil, "source": "session"})).json();
    let id = sent["messageId"].as_str().unwrap();
    for arguments in [&["status"][..], &["peers"], &["history"], &["message", id], &["whoami"], &["send", &peer.id, "x"]] {
        let said = run(broker.cli(arguments).env("CLAUDE_CODE_SESSION_ID", "session-a"));
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
        let bad = said.out.chars().find(|c| (c.is_control() && *c != '\n') || "\u{202e}\u{200b}\u{2028}".contains(*c));
        assert_eq!(bad, None, "{arguments:?}: {:?}", said.out);
    }
    assert!(human(&broker, &["message", id]).contains("\\u{1b}[2J"), "it is made visible, not hidden");
    let log = broker.log();
    assert!(!log.contains('\u{1b}') && !log.contains('\u{9b}'), "{log:?}");
    assert_eq!(script(&broker, &["message", id])["text"], format!("{evil}\nsecond line"), "a script gets what was sent");
}

#[test]
fn closed_output_pipe_is_no_error() {
    let broker = Broker::start();
    for arguments in [&["status"][..], &["peers", "--json"], &["history"], &["--help"]] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let output = broker.cli(arguments).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn demo_leaves_nothing_behind() {
    let (home, temporary) = (folder(), folder());
    for json in [false, true] {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_claude-peers"));
        demo.arg("demo")
            .args(json.then_some("--json"))
            .env("HOME", home.path())
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::null());
        let Run { code, out, err } = run(&mut demo);
        assert_eq!(code, 0, "{out}\n{err}");
        if json {
            let steps: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert!(steps.iter().all(|step| step["ms"].is_number() && step["text"].is_string()), "{out}");
            let named = |name: &str| steps.iter().filter(|step| step["step"] == name).count();
            assert_eq!((named("accepted"), named("pushed"), named("broker_killed"), named("done")), (4, 4, 1, 1), "{out}");
        } else {
            assert!(out.contains(" ms  ") && out.contains("none lost, none shown twice"), "{out}");
        }
    }
    for place in [home.path(), temporary.path()] {
        assert_eq!(std::fs::read_dir(place).unwrap().count(), 0, "something was left in {}", place.display());
    }
}
