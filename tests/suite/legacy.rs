//! The legacy API: legacy clients work with this broker unchanged, and both kinds of sessions see each other.

use crate::support::{
    Broker, Session, folder, git,
    http::{Answer, Http},
    other::Other,
};
use serde_json::{Map, Value, json};
use std::{path::Path, process};

/// A legacy session in `cwd`, registered by this process.
fn register(http: &Http, cwd: &Path, summary: &str) -> String {
    let facts = json!({"pid": process::id(), "cwd": cwd, "git_root": null, "tty": "/dev/pts/7", "summary": summary});
    let answer = http.post("/register", &facts).json();
    assert_eq!(answer.as_object().unwrap().len(), 1, "{answer}");
    answer["id"].as_str().unwrap().to_owned()
}

fn list(http: &Http, request: Value) -> Vec<Map<String, Value>> {
    serde_json::from_value(http.post("/list-peers", &request).json()).unwrap()
}

fn everybody(http: &Http) -> Vec<Map<String, Value>> {
    list(http, json!({"scope": "machine", "cwd": "/", "git_root": null}))
}

fn poll(http: &Http, id: &str) -> Vec<Value> {
    http.post("/poll-messages", &json!({"id": id})).json()["messages"].as_array().unwrap().clone()
}

/// The answer that `process` gets to this request.
fn said_by(process: &mut Other, broker: &Broker, path: &str, body: &Value) -> Answer {
    let request = broker.tcp().written("POST", path, &[("Content-Type", "application/json")], &body.to_string());
    process.says(&broker.port.to_string(), &request).unwrap()
}

fn is_time(value: &Value) -> bool {
    let text = value.as_str().unwrap();
    text.len() == "2026-05-16T12:36:00.000Z".len() && text.ends_with('Z') && text.as_bytes()[19] == b'.'
}

#[test]
fn every_path_answers_in_the_legacy_shape() {
    let (broker, place) = (Broker::start(), folder());
    let http = broker.tcp();
    let (a, b) = (register(&http, place.path(), "the first"), register(&http, Path::new("/"), ""));
    let health = http.get("/health").json();
    assert_eq!((&health["status"], &health["peers"]), (&json!("ok"), &json!(2)));

    let ok = json!({"ok": true});
    assert_eq!(http.post("/heartbeat", &json!({"id": a})).json(), ok);
    assert_eq!(http.post("/set-summary", &json!({"id": b, "summary": "the second"})).json(), ok);

    let mut peers = everybody(&http);
    peers.sort_by_key(|peer| peer["summary"].to_string());
    let fields = ["cwd", "git_root", "id", "last_seen", "pid", "registered_at", "summary", "tty"];
    for (peer, (id, cwd, summary)) in peers.iter().zip([(&a, place.path(), "the first"), (&b, Path::new("/"), "the second")]) {
        assert_eq!(peer.keys().collect::<Vec<_>>(), fields);
        assert_eq!((&peer["id"], &peer["cwd"], &peer["summary"]), (&json!(id), &json!(cwd), &json!(summary)));
        assert_eq!((&peer["pid"], &peer["git_root"], &peer["tty"]), (&json!(process::id()), &Value::Null, &json!("/dev/pts/7")));
        assert!(is_time(&peer["registered_at"]) && is_time(&peer["last_seen"]), "{peer:?}");
    }
    assert_eq!(peers.len(), 2);

    let sent = http.post("/send-message", &json!({"from_id": a, "to_id": b, "text": "hello"}));
    assert_eq!((sent.status, &sent.json()["ok"]), (200, &json!(true)));
    let sent = http.post("/send-message", &json!({"from_id": "cli", "to_id": b, "text": "from a person"}));
    assert_eq!((sent.status, &sent.json()["ok"]), (200, &json!(true)));
    let unknown = http.post("/send-message", &json!({"from_id": "cli", "to_id": "nobody", "text": "hello"}));
    assert_eq!((unknown.status, unknown.json()), (200, json!({"ok": false, "error": "Peer nobody not found"})));

    let mail = poll(&http, &b);
    let fields = ["delivered", "from_id", "id", "sent_at", "text", "to_id"];
    for (message, (from, text)) in mail.iter().zip([(a.as_str(), "hello"), ("cli", "from a person")]) {
        assert_eq!(message.as_object().unwrap().keys().collect::<Vec<_>>(), fields);
        assert!(message["id"].is_i64() && message["delivered"] == 0 && is_time(&message["sent_at"]), "{message}");
        assert_eq!((&message["from_id"], &message["to_id"], &message["text"]), (&json!(from), &json!(b), &json!(text)));
    }
    assert_eq!((mail.len(), poll(&http, &b).len()), (2, 0));

    assert_eq!(http.post("/unregister", &json!({"id": b})).json(), ok);
    assert_eq!(everybody(&http).iter().map(|peer| peer["id"].clone()).collect::<Vec<_>>(), [json!(a)]);
}

#[test]
fn unknown_path_gets_the_legacy_404() {
    let broker = Broker::start();
    for (method, path) in
        [("GET", "/"), ("GET", "/nowhere"), ("POST", "/nowhere"), ("POST", "/register/x"), ("DELETE", "/Health")]
    {
        let answer = broker.tcp().request(method, path, &[("Content-Type", "application/json")], "");
        assert_eq!((answer.status, answer.body.as_str()), (404, r#"{"error":"not found"}"#), "{method} {path}");
        assert!(answer.header("content-type").unwrap().starts_with("application/json"));
    }
}

#[test]
fn unknown_id_is_an_error() {
    let broker = Broker::start();
    let known = register(&broker.tcp(), Path::new("/"), "");
    for (path, body) in [
        ("/heartbeat", json!({"id": "abc123"})),
        ("/set-summary", json!({"id": "abc123", "summary": "x"})),
        ("/poll-messages", json!({"id": "abc123"})),
        ("/unregister", json!({"id": "abc123"})),
        ("/send-message", json!({"from_id": "abc123", "to_id": known, "text": "x"})),
    ] {
        let answer = broker.tcp().post(path, &body);
        assert_eq!((answer.status, answer.code().as_str()), (404, "peer_not_found"), "{path}");
        let error = serde_json::from_str::<Value>(&answer.body).unwrap()["error"].clone();
        assert!(error.as_str().unwrap().starts_with("Peer abc123 not found"), "the reference's clients read a text: {error}");
    }
    assert_eq!(broker.stored().0, 0);
}

#[test]
fn poll_hands_out_long_messages_in_parts() {
    let broker = Broker::start();
    let id = register(&broker.tcp(), Path::new("/"), "");
    for letter in ["a", "b", "c", "d", "e"] {
        let text = letter.repeat(256 * 1024);
        assert_eq!(broker.http().post("/v1/send", &json!({"to": id, "text": text})).status, 200);
    }
    let polled = || -> Vec<String> {
        let mail = poll(&broker.tcp(), &id);
        mail.iter().map(|message| message["text"].as_str().unwrap()[..1].to_owned()).collect()
    };
    assert_eq!(polled(), ["a", "b", "c", "d"]);
    assert_eq!(polled(), ["e"]);
}

#[test]
fn next_poll_acknowledges_the_fetched_messages() {
    let mut broker = Broker::start();
    let id = register(&broker.tcp(), Path::new("/"), "");
    let sent = broker.http().post("/v1/send", &json!({"to": id, "text": "hello"})).json();
    let path = format!("/v1/messages/{}", sent["messageId"].as_str().unwrap());
    let state = |broker: &Broker| {
        let entry = broker.http().get(&path).json();
        (entry["state"].as_str().unwrap().to_owned(), entry["route"].as_str().unwrap_or("none").to_owned())
    };
    let is = |state: &str, route: &str| (state.to_owned(), route.to_owned());
    assert_eq!(state(&broker), is("queued", "none"));
    assert_eq!(poll(&broker.tcp(), &id)[0]["text"], "hello");
    assert_eq!(state(&broker), is("offered", "poll"));
    broker.http().post("/v1/send", &json!({"to": id, "text": "and more"})).json();
    assert_eq!(state(&broker), is("offered", "poll"), "only a poll shows it");
    broker.restart();
    assert_eq!(state(&broker), is("offered", "poll"), "a restart shows nothing");
    let mail = poll(&broker.tcp(), &id);
    assert_eq!(
        mail.iter().map(|message| message["text"].clone()).collect::<Vec<_>>(),
        ["and more"],
        "the same id, the same mail"
    );
    assert_eq!(state(&broker), is("delivered", "poll"));
}

#[test]
fn legacy_and_new_sessions_talk() {
    let (broker, place) = (Broker::start(), folder());
    let (old, new) = (place.path().join("old"), place.path().join("new"));
    git::repository(&old);
    git::repository(&new);
    std::fs::create_dir(old.join("inner")).unwrap();
    let http = broker.tcp();
    let facts = json!({"pid": process::id(), "cwd": old.join("inner"), "git_root": old, "tty": null, "summary": "old work"});
    let id = http.post("/register", &facts).json()["id"].as_str().unwrap().to_owned();
    let mut session = Session::start(&broker, &new, "session-a");
    let session_id = session.id();

    // Each lists the other.
    let seen = session.peers()[0].clone();
    assert_eq!((&seen["id"], &seen["name"], &seen["summary"]), (&json!(id), &json!("old"), &json!("old work")));
    assert_eq!((&seen["gitRepo"], &seen["gitBranch"]), (&json!("old"), &json!("main")));
    assert_eq!((&seen["status"], &seen["delivery"]), (&json!("connected"), &json!("poll")));
    session.tool("set_summary", json!({"summary": "new work"}));
    let machine = list(&http, json!({"scope": "machine", "cwd": "/", "git_root": null, "exclude_id": id}));
    let seen = &machine[0];
    assert_eq!((machine.len(), &seen["id"], &seen["summary"]), (1, &json!(session_id), &json!("new work")));
    assert_eq!((&seen["cwd"], &seen["git_root"]), (&json!(new), &json!(new)));
    assert!(seen["pid"].is_u64());
    let in_scope = |scope: &str, cwd: &Path, root: Option<&Path>| {
        let peers = list(&http, json!({"scope": scope, "cwd": cwd, "git_root": root}));
        peers.iter().map(|peer| peer["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(in_scope("repo", &new, Some(&new)), [session_id.as_str()]);
    assert_eq!(in_scope("repo", &old, Some(&old)), [id.as_str()]);
    assert_eq!(in_scope("directory", &old.join("inner"), Some(&old)), [id.as_str()]);
    assert!(in_scope("directory", &old, Some(&old)).is_empty());

    // A question and its answer.
    http.post("/send-message", &json!({"from_id": id, "to_id": session_id, "text": "are you there?"})).json();
    let push = session.pushed();
    assert_eq!((&push["content"], &push["meta"]["from_id"]), (&json!("are you there?"), &json!(id)));
    assert_eq!(push["meta"]["from_summary"], "old work");
    session.send("old", "yes");
    let mail = poll(&http, &id);
    assert_eq!((mail.len(), &mail[0]["from_id"], &mail[0]["text"]), (1, &json!(session_id), &json!("yes")));
}

#[test]
fn only_a_legacy_clients_processes_use_its_id() {
    let broker = Broker::start();
    let http = broker.tcp();
    let mut other = Other::process();
    let pid = other.pid();
    let mut say = |path: &str, body: &Value| said_by(&mut other, &broker, path, body);
    let victim = register(&http, Path::new("/"), "");
    let facts = json!({"pid": pid, "cwd": "/other", "git_root": null, "tty": null, "summary": "mine"});
    let theirs = say("/register", &facts).json()["id"].as_str().unwrap().to_owned();
    broker.http().post("/v1/send", &json!({"to": theirs, "text": "for the other process"})).json();

    // A parent process may not use its child's id.
    for (path, body) in [
        ("/heartbeat", json!({"id": theirs})),
        ("/set-summary", json!({"id": theirs, "summary": "stolen"})),
        ("/poll-messages", json!({"id": theirs})),
        ("/send-message", json!({"from_id": theirs, "to_id": victim, "text": "forged"})),
        ("/unregister", json!({"id": theirs})),
    ] {
        for http in [broker.tcp(), broker.http()] {
            let answer = http.post(path, &body);
            assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{path}");
        }
    }
    assert!(poll(&http, &victim).is_empty());
    let listed = everybody(&http);
    let theirs_listed = listed.iter().find(|peer| peer["id"] == *theirs).unwrap();
    assert_eq!((&theirs_listed["summary"], &theirs_listed["pid"]), (&json!("mine"), &json!(pid)));
    assert_eq!(say("/poll-messages", &json!({"id": theirs})).json()["messages"][0]["text"], "for the other process");

    // A child may use its parent's id, and register its parent.
    assert_eq!(say("/heartbeat", &json!({"id": victim})).status, 200);
    let facts = json!({"pid": process::id(), "cwd": "/", "git_root": null, "tty": null, "summary": ""});
    let ours = say("/register", &facts).json()["id"].as_str().unwrap().to_owned();
    assert_eq!(http.post("/heartbeat", &json!({"id": ours})).status, 200);
}

#[test]
fn claimed_pid_of_another_process_is_ignored() {
    let broker = Broker::start();
    let (mut liar, mut bystander) = (Other::process(), Other::process());
    let facts = json!({"pid": bystander.pid(), "cwd": "/", "git_root": null, "tty": null, "summary": ""});
    let id = said_by(&mut liar, &broker, "/register", &facts).json()["id"].clone();
    assert_eq!(said_by(&mut liar, &broker, "/heartbeat", &json!({"id": id})).status, 200);
    assert_eq!(said_by(&mut bystander, &broker, "/heartbeat", &json!({"id": id})).code(), "forbidden");
}

#[test]
fn killed_legacy_session_is_unlisted_at_once() {
    let broker = Broker::start();
    let http = broker.tcp();
    let mut other = Other::process();
    let facts = json!({"pid": other.pid(), "cwd": "/", "git_root": null, "tty": null, "summary": ""});
    let id = said_by(&mut other, &broker, "/register", &facts).json()["id"].clone();
    assert_eq!((everybody(&http).len(), &http.get("/health").json()["peers"]), (1, &json!(1)));
    other.kill();
    assert_eq!((everybody(&http).len(), &http.get("/health").json()["peers"]), (0, &json!(0)));
    let sent = http.post("/send-message", &json!({"from_id": "cli", "to_id": id, "text": "too late"})).json();
    assert_eq!(sent["ok"], true, "its mailbox is kept");
}

#[test]
fn one_connection_carries_many_requests() {
    let broker = Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    let id = register(&broker.tcp(), Path::new("/"), "");
    for http in [broker.tcp(), broker.http()] {
        let mut conversation = http.converse();
        for round in 0..20 {
            let text = format!("round {round}");
            let send = json!({"from_id": "cli", "to_id": id, "text": text}).to_string();
            assert_eq!(conversation.ask("POST", "/send-message", &send).json()["ok"], true);
            let mail = conversation.ask("POST", "/poll-messages", &json!({"id": id}).to_string()).json();
            assert_eq!((mail["messages"].as_array().unwrap().len(), &mail["messages"][0]["text"]), (1, &json!(text)));
        }
        assert_eq!(conversation.ask("GET", "/health", "").status, 200);
        assert_eq!(conversation.ask("POST", "/nowhere", "{}").status, 404);
    }
}
