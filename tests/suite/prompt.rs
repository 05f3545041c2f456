//! The command line as people use it, in a terminal: tables that fit, local times, short names, a broker to start by hand.

use crate::support::{Broker, Session, broker::signal, events::Peer, eventually, folder};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Command, Output, Stdio},
};
use unicode_width::UnicodeWidthStr;

/// What the command prints on a terminal of this width. `script` makes the terminal.
fn on_terminal(broker: &Broker, columns: usize, arguments: &[&str]) -> String {
    let plain = broker.cli(arguments);
    let mut command = Command::new("script");
    let words = format!("stty cols {columns} rows 40; exec '{}' {}", plain.get_program().display(), arguments.join(" "));
    command.args(["-qec", &words, "/dev/null"]).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("TERM", "xterm").env("NO_COLOR", "1").env("TZ", "Asia/Kathmandu").env("LC_ALL", "C.UTF-8");
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n")
}

/// Eleven peers with names and texts of every kind.
fn crowd(broker: &Broker) -> Vec<Peer> {
    let names = [
        "a",
        "shop-api",
        "a-very-long-name-of-a-session-that-never-ends-and-ends",
        "支払い",
        "emoji",
        "x-6",
        "x-7",
        "x-8",
        "x-9",
        "x-10",
        "x-11",
    ];
    let peer = |(number, name): (usize, &&str)| {
        let git = json!({"commonDir": format!("/{name}/.git"), "head": format!("/{name}/HEAD"), "repo": name, "branch": "feature/支払いを直す"});
        let peer =
            Peer::register(&broker.http(), &number.to_string(), json!({"cwd": format!("/home/someone/src/{name}"), "git": git}));
        let summary = "Repairs 決済 👩🏽‍💻🎉 of theCheckoutPageWithoutAnySpaceInItsVeryLongName, then writes more tests";
        peer.over(&broker.http()).post("/v1/set-summary", &json!({"summary": summary, "source": "session"})).json();
        peer
    };
    names.iter().enumerate().map(peer).collect()
}

#[test]
fn tables_fit_every_terminal() {
    let broker = Broker::start();
    let peers = crowd(&broker);
    let text = "A sentence with 漢字 and 🎉, long enough for every terminal: ".repeat(8);
    for peer in &peers[1..] {
        peers[0].over(&broker.http()).post("/v1/send", &json!({"to": peer.id, "text": text})).json();
    }
    for columns in [60, 80, 120, 200] {
        for (arguments, rows) in [(&["peers"][..], peers.len()), (&["history", "--limit", "11"], 10)] {
            let said = on_terminal(&broker, columns, arguments);
            assert_eq!(said.lines().count(), 1 + rows, "{columns}: {said}");
            for line in said.lines() {
                assert!(line.width() <= columns, "{columns}: {} in {line:?}", line.width());
            }
        }
        let peers = on_terminal(&broker, columns, &["peers"]);
        assert!(peers.contains("shop-api") && peers.contains('…'), "{columns}: {peers}");
    }
    let wide = on_terminal(&broker, 200, &["peers"]);
    assert!(wide.lines().next().unwrap().ends_with("AGENT") && wide.contains("feature/支払いを直す"), "{wide}");
}

#[test]
fn people_read_local_times() {
    let broker = Broker::start();
    let peer = Peer::register(&broker.http(), "peer", json!({}));
    let (_, sent) = broker.cli_json(&["send", &peer.id, "x"]);
    let id = sent["messageId"].as_str().unwrap();
    let utc = sent["sentAt"].as_str().unwrap();
    let date = Command::new("date").args(["+%Y-%m-%d %H:%M:%S", "-d", utc]).env("TZ", "Asia/Kathmandu").output().unwrap();
    let local = String::from_utf8(date.stdout).unwrap();
    let said = on_terminal(&broker, 100, &["message", id]);
    assert!(said.contains(local.trim()) && !said.contains(utc), "{local}: {said}");
    let piped = broker.cli(&["message", id]).output().unwrap().stdout;
    assert!(String::from_utf8(piped).unwrap().contains(utc));
}

#[test]
fn number_names_a_message_for_the_user() {
    let (broker, place) = (Broker::start(), folder());
    let mut session = Session::pulling(&broker, place.path(), "session-a");
    let id = session.id();
    let (_, sent) = broker.cli_json(&["send", &id, "first"]);
    let whole = sent["messageId"].as_str().unwrap();
    let number = whole.split_once('-').unwrap().0;
    assert_eq!(broker.cli_json(&["message", number]).1["messageId"], whole);
    let (_, reply) = broker.cli_json(&["send", &id, "second", "--reply-to", number]);
    assert_eq!(reply["replyTo"], whole);
    let (_, page) = broker.cli_json(&["history", "--before", reply["messageId"].as_str().unwrap().split_once('-').unwrap().0]);
    assert_eq!(page["messages"][0]["messageId"], whole);
    let (code, released) = broker.cli_json(&["release", number]);
    assert_eq!((code, released["error"]["message"].as_str()), (4, Some(&*format!("no message {whole} is held"))));
    for wrong in [&format!("{number}-wrong1"), "m999"] {
        assert_eq!(broker.cli_json(&["message", wrong]).0, 4, "{wrong}");
    }
    for wrong in ["m0", "m01", "m", "m99999999999999999999"] {
        assert_eq!(broker.cli_json(&["message", wrong]).0, 2, "{wrong}");
    }
    // A session that guesses numbers learns nothing.
    let peer = Peer::register(&broker.http(), "peer", json!({})).over(&broker.http());
    assert_eq!(peer.get(&format!("/v1/messages/{number}")).code(), "invalid_id");
    let reply = json!({"to": id, "text": "x", "replyTo": number});
    assert_eq!(peer.post("/v1/send", &reply).code(), "invalid_id");
    assert_eq!(peer.get(&format!("/v1/history?before={number}")).code(), "invalid_id");
}

#[test]
fn unknown_peer_is_answered_with_names_like_it() {
    let broker = Broker::start();
    for name in ["shop-api", "shop-web", "poker"] {
        let git = json!({"commonDir": format!("/{name}/.git"), "head": format!("/{name}/HEAD"), "repo": name, "branch": "main"});
        Peer::register(&broker.http(), name, json!({"cwd": format!("/{name}"), "git": git}));
    }
    for (given, meant) in [
        ("shop-apl", "did you mean shop-api?"),
        ("SHOPAPI", "did you mean shop-api?"),
        ("api", "did you mean shop-api?"),
        ("shop", "did you mean shop-api or shop-web?"),
        ("zebra", "list the peers"),
    ] {
        for arguments in [&["send", given, "x"][..], &["ask", given, "x"], &["history", "--peer", given]] {
            let (code, json) = broker.cli_json(arguments);
            let help = json["error"]["help"].as_str().unwrap_or_default();
            assert!(code == 4 && help.starts_with(meant), "{arguments:?}: {json}");
        }
    }
    for known in ["shop-api", "cli", "broker"] {
        assert_eq!(broker.cli_json(&["history", "--peer", known]).0, 0, "{known}");
    }
}

#[test]
fn interrupted_question_names_its_message() {
    let broker = Broker::start();
    let peer = Peer::register(&broker.http(), "peer", json!({}));
    let mut ask = broker.cli(&["ask", &peer.id, "hm?", "--json"]);
    let ask = ask.stdout(Stdio::piped()).spawn().unwrap();
    let id = eventually("the question is stored", || {
        broker.cli_json(&["history"]).1["messages"][0]["messageId"].as_str().map(str::to_owned)
    });
    signal(ask.id(), "INT");
    let Output { status, stdout, .. } = ask.wait_with_output().unwrap();
    let said: Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!((status.code(), &said["error"]["code"]), (Some(130), &json!("interrupted")), "{said}");
    assert!(said["error"]["message"].as_str().unwrap().contains(&id), "{said}");
}

/// A command where no service manager is; none on a machine whose systemd is only out of reach, which is a fault to be told.
fn unmanaged(broker: &Broker, runtime: &Path, arguments: &[&str]) -> (i32, Value) {
    let output = broker.cli(arguments).arg("--json").env("XDG_RUNTIME_DIR", runtime).output().unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {output:?}"));
    (output.status.code().unwrap(), json)
}

/// Stops a broker that runs in the background.
struct Background<'a>(&'a Broker);

impl Drop for Background<'_> {
    fn drop(&mut self) {
        drop(self.0.cli(&["stop"]).output());
    }
}

#[test]
fn broker_runs_in_the_background_without_a_manager() {
    if Path::new("/run/systemd/system").is_dir() {
        return eprintln!("SKIPPED: systemd runs this machine");
    }
    let (broker, runtime) = (Broker::prepared(&[]), folder());
    let stop = Background(&broker);
    let (code, started) = unmanaged(&broker, runtime.path(), &["start"]);
    assert_eq!((code, &started["already"]), (0, &json!(false)), "{started}");
    let first = started["pid"].as_u64().unwrap();
    assert_eq!(broker.cli_json(&["status"]).1["broker"]["pid"], first);
    assert_eq!(
        unmanaged(&broker, runtime.path(), &["start"]).1,
        json!({"pid": first, "version": env!("CARGO_PKG_VERSION"), "already": true})
    );
    let (code, again) = unmanaged(&broker, runtime.path(), &["restart"]);
    assert!(code == 0 && again["pid"] != json!(first), "{again}");
    let logs = broker.cli(&["logs", "-n", "1"]).env("XDG_RUNTIME_DIR", runtime.path()).output().unwrap();
    let logs = String::from_utf8(logs.stdout).unwrap();
    assert!(logs.lines().count() == 1, "{logs}");
    let mut logs = broker.cli(&["logs"]);
    let logs = logs.env("XDG_RUNTIME_DIR", runtime.path()).env("CLAUDE_PEERS_SOCKET", "here").output().unwrap();
    assert_eq!(logs.status.code(), Some(2), "a setting that cannot be used: {logs:?}");
    drop(stop);
    std::fs::write(broker.database(), "this is no database, and long enough to be seen as something else entirely").unwrap();
    let (code, failed) = unmanaged(&broker, runtime.path(), &["start"]);
    assert!(code == 1 && failed["error"]["message"].as_str().unwrap().contains("ended before it was ready"), "{failed}");
}
