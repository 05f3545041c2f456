//! Secrets and texts appear in no log, list or process table, and other users cannot read files.

use crate::support::{Broker, Session, events::Peer, eventually, folder};
use serde_json::json;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
};

#[test]
fn secrets_and_texts_stay_out_of_logs() {
    let (broker, place) = (Broker::with(&[("CLAUDE_PEERS_LOG", "trace")]), folder());
    let mut session = Session::start(&broker, place.path(), "session-a");
    let id = session.id();
    let http = broker.http();
    let script = Peer::register(&http, "script", json!({}));
    let as_script = script.over(&http);
    as_script.post("/v1/send", &json!({"to": id, "text": "the-text-of-a-message"})).json();
    session.pushed();
    session.send(&script.id, "the-text-of-another");
    as_script.post("/v1/take", &json!({"lease": "l", "route": "check_messages"})).json();
    assert_eq!(http.as_peer("a-secret-of-nobody").get("/v1/events").status, 401);
    assert_eq!(as_script.request("POST", "/v1/send", &[("Origin", "x")], "{").status, 403);
    assert_eq!(as_script.request("POST", "/v1/send", &[("Content-Type", "application/json")], "{").status, 400);

    let shown = [
        as_script.get("/v1/peers?scope=machine").body,
        as_script.get("/v1/whoami").body,
        http.get("/v1/status").body,
        http.get("/v1/history").body,
        http.post("/list-peers", &json!({"scope": "machine", "cwd": "/", "git_root": null})).body,
        session.call("list_peers", json!({"scope": "machine"})).to_string(),
        String::from_utf8(broker.cli(&["status"]).output().unwrap().stdout).unwrap(),
    ];
    let processes =
        [broker.pid(), session.pid()].map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default());
    let log = broker.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log is as loud as it gets: {log}");
    for text in shown.iter().chain(&processes).chain([&log, &session.log()]) {
        assert!(!text.contains(&script.secret) && !text.contains("a-secret-of-nobody"), "{text}");
        // The test does not know the secrets of real sessions, but knows their shape.
        let token = text.split(|c: char| !c.is_ascii_alphanumeric()).find(|word| word.len() >= 32);
        assert_eq!(token, None, "this looks like a secret: {text}");
    }
    for text in [&log, &session.log()] {
        assert!(!text.contains("the-text-of"), "{text}");
    }
}

#[test]
fn files_are_private_to_the_user() {
    let mode = |path: &Path| format!("{:o}", fs::metadata(path).unwrap().permissions().mode() & 0o7777);
    let mut broker = Broker::prepared(&[]);
    let files = ["peers.db", "peers.db-wal", "peers.db-shm", "run/broker.sock"];
    let open = |folder: &Path| {
        files.iter().map(|file| folder.join(file)).filter(|file| file.exists()).for_each(|file| {
            fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        });
    };
    for round in ["made under an open umask", "found with open permissions"] {
        broker.launch_as(broker.command_after("umask 0"));
        Peer::register(&broker.http(), round.split(' ').next().unwrap(), json!({}));
        for file in files {
            assert_eq!(mode(&broker.folder().join(file)), "600", "{file}, {round}");
        }
        assert_eq!(mode(&broker.folder().join("run")), "700", "{round}");
        broker.kill(); // keeps the WAL files
        open(broker.folder());
    }
}

#[test]
fn open_socket_folder_is_closed_or_reported() {
    let broker = Broker::prepared(&[]);
    let shared = broker.folder().join("run");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o755)).unwrap();
    let mut broker = broker;
    broker.launch();
    let status = broker.http().get("/v1/status").json();
    let unix = status["listeners"].as_array().unwrap().iter().find(|listener| listener["kind"] == "unix").unwrap();
    assert!(unix["listening"] == true && unix["problem"].as_str().unwrap().contains("mode 0755"), "{unix}");
    assert!(status["notices"].to_string().contains("mode 0755"), "{status}");

    let ours = broker.folder().join("claude-peers");
    fs::create_dir(&ours).unwrap();
    fs::set_permissions(&ours, Permissions::from_mode(0o755)).unwrap();
    let mut second = broker.command();
    second.env("CLAUDE_PEERS_SOCKET", ours.join("broker.sock")).env("CLAUDE_PEERS_DB", broker.folder().join("second.db"));
    let mut second = second.stdin(Stdio::null()).spawn().unwrap();
    eventually("the second broker listens", || ours.join("broker.sock").exists().then_some(()));
    assert_eq!(fs::metadata(&ours).unwrap().permissions().mode() & 0o777, 0o700);
    second.kill().unwrap();
    second.wait().unwrap();
}
