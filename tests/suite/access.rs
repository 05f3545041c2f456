//! Access to the broker: other users and web pages are refused, and peers can act only for themselves.

use crate::support::{
    Broker,
    events::Peer,
    http::{Http, read_answer},
    other::{Other, as_another_user},
};
use serde_json::{Value, json};
use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Requests that would change or reveal something if they were allowed.
const REQUESTS: [(&str, &str, &str); 25] = [
    ("GET", "/health", ""),
    ("POST", "/register", r#"{"pid":1,"cwd":"/tmp","git_root":null,"tty":null,"summary":"evil"}"#),
    ("POST", "/heartbeat", r#"{"id":"victim"}"#),
    ("POST", "/set-summary", r#"{"id":"victim","summary":"evil"}"#),
    ("POST", "/list-peers", r#"{"scope":"machine","cwd":"/","git_root":null}"#),
    ("POST", "/send-message", r#"{"from_id":"cli","to_id":"victim","text":"evil"}"#),
    ("POST", "/poll-messages", r#"{"id":"victim"}"#),
    ("POST", "/unregister", r#"{"id":"victim"}"#),
    ("GET", "/v1/hello", ""),
    ("POST", "/v1/register", r#"{"client":{"name":"evil","version":"1"},"instance":"evil","pid":1,"cwd":"/tmp"}"#),
    ("GET", "/v1/peers?scope=machine", ""),
    ("POST", "/v1/send", r#"{"to":"victim","text":"evil"}"#),
    ("POST", "/v1/set-summary", r#"{"summary":"evil","source":"session"}"#),
    ("POST", "/v1/take", r#"{"lease":"evil","route":"check_messages"}"#),
    ("POST", "/v1/stop", "{}"),
    ("GET", "/v1/events", ""),
    ("GET", "/v1/watch", ""),
    ("GET", "/v1/history", ""),
    ("GET", "/v1/search?words=x", ""),
    ("GET", "/v1/status", ""),
    ("GET", "/v1/openapi.json", ""),
    ("GET", "/metrics", ""),
    ("GET", "/", ""),
    ("POST", "/nowhere", "{}"),
    ("POST", "/v1/nowhere", "{}"),
];

/// A broker with one peer whose name is `victim`.
fn broker_with_a_victim(settings: &[(&str, &str)]) -> Broker {
    let broker = Broker::with(settings);
    let victim = Peer::register(&broker.http(), "victim", json!({"cwd": "/victim"}));
    assert_eq!(victim.name, "victim");
    broker
}

fn both(broker: &Broker) -> [Http; 2] {
    [broker.http(), broker.tcp()]
}

// Another user.

#[test]
fn every_tcp_path_refuses_another_user() {
    let Some(mut stranger) = Other::user() else { return };
    let broker = broker_with_a_victim(&[]);
    let before = broker.stored();
    for (method, path, body) in REQUESTS {
        let request = broker.tcp().written(method, path, &[("Content-Type", "application/json")], body);
        let answer = stranger.says(&broker.port.to_string(), &request).unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{method} {path}");
        assert!(!answer.body.contains("victim"), "{}", answer.body);
    }
    assert_eq!(broker.stored(), before);
    assert!(broker.log().contains("not this user's"), "it is said in the log");
    (0..40).for_each(|_| drop(stranger.says(&broker.port.to_string(), &broker.tcp().written("GET", "/health", &[], ""))));
    let lines = broker.log().matches("not this user's").count();
    assert!((1..=40).contains(&lines), "{lines}: nobody else can fill the log");
    assert_eq!(broker.tcp().get("/health").status, 200, "the user is served");
    let mut dual = std::net::TcpStream::connect(format!("[::ffff:127.0.0.1]:{}", broker.port)).unwrap();
    dual.write_all(&broker.tcp().written("GET", "/health", &[], "")).unwrap();
    assert_eq!(read_answer(Box::new(dual)).status, 200, "also through a socket of both families");
}

#[test]
fn unix_socket_refuses_another_user() {
    let Some(mut stranger) = Other::user() else { return };
    let broker = broker_with_a_victim(&[]);
    let (before, socket) = (broker.stored(), broker.socket());
    let address = socket.to_str().unwrap();
    let request = broker.http().written("POST", "/v1/send", &[("Content-Type", "application/json")], REQUESTS[11].2);
    let mut cannot = |what: &str| {
        let why = stranger.says(address, &request).expect_err(what);
        assert!(why.contains("cannot connect"), "{what}: {why}");
    };
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();

    cannot("its folder is closed");
    open(broker.folder(), 0o755);
    open(socket.parent().unwrap(), 0o755);
    cannot("its folder is open, the socket is not");
    open(&socket, 0o666);
    let answer = stranger.says(address, &request).unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "all doors are open, the broker looks who it is");
    assert_eq!(broker.stored(), before);

    // Likewise, our own client does not talk to another user's broker.
    let program = broker.folder().join("claude-peers");
    fs::copy(env!("CARGO_BIN_EXE_claude-peers"), &program).unwrap();
    open(&program, 0o755);
    let output = as_another_user(&program).env("CLAUDE_PEERS_SOCKET", &socket).args(["status", "--json"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("is served by user 0, not by you"), "{said}");
}

// Web pages.

#[test]
fn every_path_refuses_web_pages() {
    let broker = broker_with_a_victim(&[]);
    let (before, port) = (broker.stored(), broker.port);
    let own = format!("http://127.0.0.1:{port}");
    let json = ("Content-Type", "application/json");
    let pages: [(&str, &[(&str, &str)]); 8] = [
        ("fetch from another site", &[("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site"), json]),
        ("a sandboxed frame", &[("Origin", "null"), json]),
        ("the broker's own origin", &[("Origin", &own), ("Sec-Fetch-Site", "same-origin"), json]),
        (
            "a picture or a link",
            &[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image"), json],
        ),
        ("a browser without a site", &[("Sec-Fetch-Mode", "navigate"), json]),
        ("a form", &[("Origin", "https://evil.example"), ("Content-Type", "application/x-www-form-urlencoded")]),
        ("fetch without preflight", &[("Origin", "https://evil.example"), ("Content-Type", "text/plain")]),
        ("an EventSource", &[("Sec-Fetch-Site", "same-site"), ("Accept", "text/event-stream"), json]),
    ];
    for http in both(&broker) {
        for (method, path, body) in REQUESTS {
            for (page, headers) in pages {
                let answer = http.request(method, path, headers, body);
                assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{page}: {method} {path}");
                assert_no_cors(&answer.headers, page);
            }
        }
    }
    assert_eq!(broker.stored(), before);
    assert_eq!(
        broker.http().post("/v1/send", &json!({"to": "victim", "text": "evil"})).status,
        200,
        "without a browser's marks it passes"
    );
}

#[test]
fn foreign_host_names_are_refused() {
    let broker = broker_with_a_victim(&[]);
    let (before, port) = (broker.stored(), broker.port);
    let hosts = ["evil.example".to_owned(), format!("evil.example:{port}"), format!("127.0.0.1.evil.example:{port}")];
    let hosts = hosts.into_iter().chain(["127.0.0.1".to_owned(), "localhost".to_owned(), format!("127.0.0.1:{}", port ^ 1)]);
    let hosts: Vec<String> = hosts
        .chain([String::new(), format!("127.0.0.1:{port}, evil.example"), format!("127.0.0.1:{port}@evil.example")])
        .collect();
    for (method, path, body) in REQUESTS {
        for host in &hosts {
            let answer = broker.tcp().request(method, path, &[("Host", host), ("Content-Type", "application/json")], body);
            assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{host}: {method} {path}");
        }
        let headers = [("Host", &*format!("127.0.0.1:{port}")), ("Host", "evil.example"), ("Content-Type", "application/json")];
        assert_eq!(broker.tcp().request(method, path, &headers, body).status, 403, "two hosts: {method} {path}");
        let absolute = format!("http://evil.example:{port}{path}");
        let answer = broker.tcp().request(method, &absolute, &[("Content-Type", "application/json")], body);
        assert_eq!(answer.status, 403, "a foreign authority: {method} {path}");
    }
    assert_eq!(broker.stored(), before);
    for host in [format!("localhost:{port}"), format!("LOCALHOST:{port}"), format!("[::1]:{port}")] {
        assert_eq!(broker.tcp().request("GET", "/health", &[("Host", &host)], "").status, 200, "{host}");
    }
}

#[test]
fn other_content_types_are_refused() {
    let broker = broker_with_a_victim(&[]);
    let before = broker.stored();
    let kinds =
        ["text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"];
    let kinds = kinds.into_iter().chain(["text/json", "application/jsonp", "application/json+x", "*/*", ""]);
    let kinds: Vec<&str> = kinds.collect();
    // These two check the secret first.
    let takes_a_body = |path: &str| !path.ends_with("nowhere") && !["/v1/take", "/v1/set-summary"].contains(&path);
    for http in both(&broker) {
        for (method, path, body) in REQUESTS.into_iter().filter(|(_, path, body)| !body.is_empty() && takes_a_body(path)) {
            for kind in &kinds {
                let answer = http.request(method, path, &[("Content-Type", kind)], body);
                assert_eq!((answer.status, answer.code().as_str()), (415, "unsupported_media_type"), "{kind}: {path}");
            }
            assert_eq!(http.request(method, path, &[], body).status, 415, "no type: {path}");
        }
        let json = [("Content-Type", "Application/JSON; charset=utf-8")];
        assert_eq!(http.request("POST", "/list-peers", &json, REQUESTS[4].2).status, 200);
    }
    assert_eq!(broker.stored(), before);
}

#[test]
fn preflights_are_refused_and_upgrades_ignored() {
    let broker = broker_with_a_victim(&[]);
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let preflight = [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "content-type")];
    let origin = [("Origin", "https://evil.example")];
    for http in both(&broker) {
        for (_, path, _) in REQUESTS {
            let answer = http.request("OPTIONS", path, &[&origin[..], &preflight].concat(), "");
            assert_eq!(answer.status, 403, "{path}");
            assert_no_cors(&answer.headers, path);
            let answer = http.request("OPTIONS", path, &preflight, "");
            assert!([404, 405].contains(&answer.status), "{path}: {}", answer.status);
            assert_no_cors(&answer.headers, path);
            let answer = http.request("GET", path, &[&origin[..], &upgrade].concat(), "");
            assert_eq!(answer.status, 403, "{path}");
        }
        let secret = Peer::register(&http, "upgrader", json!({})).over(&http);
        for (path, http) in [("/health", &http), ("/v1/status", &http), ("/v1/peers?scope=machine", &secret)] {
            let headers: Vec<_> = upgrade[1..].iter().copied().chain([("Connection", "close, Upgrade")]).collect();
            assert_eq!(http.request("GET", path, &headers, "").status, 200, "{path}: the upgrade is ignored");
        }
    }
}

fn assert_no_cors(headers: &[(String, String)], what: &str) {
    let cors = headers.iter().find(|(name, _)| name.to_ascii_lowercase().starts_with("access-control-"));
    assert!(cors.is_none(), "{what}: {cors:?}");
}

// Peers that lie.

#[test]
fn secret_limits_a_peer_to_its_own_data() {
    let broker = Broker::start();
    let http = broker.http();
    let [alice, bob, eve] = ["alice", "bob", "eve"].map(|name| Peer::register(&http, name, json!({"cwd": format!("/{name}")})));
    let [as_alice, as_bob, as_eve] = [&alice, &bob, &eve].map(|peer| peer.over(&http));
    let sent = as_alice.post("/v1/send", &json!({"to": "bob", "text": "the plan"})).json();
    let id = sent["messageId"].as_str().unwrap();

    let forged = json!({"to": "bob", "text": "from alice, really", "from": alice.id, "fromId": alice.id, "from_id": alice.id});
    let forged = as_eve.post("/v1/send", &forged).json();
    assert_eq!(forged["from"], *eve.id, "the sender is derived from the secret");
    let entry = as_bob.get(&format!("/v1/messages/{}", forged["messageId"].as_str().unwrap())).json();
    assert_eq!((&entry["from"], &entry["fromName"]), (&json!(eve.id), &json!("eve")));

    // A peer cannot read, take, acknowledge or answer another's mail.
    for (http, status) in [(&as_alice, 200), (&as_bob, 200), (&http, 200), (&as_eve, 403)] {
        assert_eq!(http.get(&format!("/v1/messages/{id}")).status, status);
    }
    let take = json!({"lease": "l", "route": "check_messages"});
    assert_eq!(as_eve.post("/v1/take", &take).json()["messages"], json!([]));
    let texts = |page: &Value| page["messages"].as_array().unwrap().iter().map(|m| m["text"].clone()).collect::<Vec<_>>();
    assert_eq!(texts(&as_eve.get("/v1/history").json()), ["from alice, really"]);
    assert_eq!(texts(&as_eve.get("/v1/history?peer=alice").json()), ["from alice, really"], "whatever it asks for");
    for outcome in ["delivered", "offered", "announced", "released"] {
        let acknowledge = json!({"route": "channel", "messages": [{"id": id, "outcome": outcome}]});
        assert_eq!(as_eve.post("/v1/acknowledge", &acknowledge).json()["changed"], 0, "{outcome}");
    }
    let answer = json!({"to": "alice", "text": "I have read it", "replyTo": id});
    assert_eq!(as_eve.post("/v1/send", &answer).code(), "message_not_found");
    assert_eq!(http.get(&format!("/v1/messages/{id}")).json()["state"], "queued");
    assert_eq!(texts(&as_bob.post("/v1/take", &take).json()), ["the plan", "from alice, really"]);

    // Nor can it set another's summary or do what only the user may.
    as_eve.post("/v1/set-summary", &json!({"summary": "I am alice", "source": "session", "id": alice.id})).json();
    let peers = http.get("/v1/peers?scope=machine").json();
    let summary = |name: &str| peers["peers"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap()["summary"].clone();
    assert_eq!((summary("alice"), summary("eve")), (json!(""), json!("I am alice")));
    assert_eq!(as_eve.post("/v1/stop", &json!({})).code(), "forbidden");

    // The legacy paths refuse the id of a session that has a secret.
    for (path, field) in [
        ("/heartbeat", "id"),
        ("/set-summary", "id"),
        ("/poll-messages", "id"),
        ("/unregister", "id"),
        ("/send-message", "from_id"),
    ] {
        let body = json!({field: alice.id, "summary": "evil", "to_id": bob.id, "text": "evil"});
        for http in both(&broker) {
            assert_eq!(http.post(path, &body).code(), "forbidden", "{path}");
        }
    }
    assert_eq!(broker.stored().0, 2);
}

#[test]
fn missing_or_wrong_secrets_are_unauthorized() {
    let broker = broker_with_a_victim(&[]);
    let before = broker.stored();
    let own = [
        ("POST", "/v1/take"),
        ("POST", "/v1/acknowledge"),
        ("POST", "/v1/set-summary"),
        ("POST", "/v1/unregister"),
        ("GET", "/v1/events"),
    ];
    for http in both(&broker) {
        for (method, path) in own {
            assert_eq!(
                http.request(method, path, &[("Content-Type", "application/json")], "{}").code(),
                "unauthorized",
                "{path}"
            );
        }
        for wrong in ["Bearer", "Bearer ", "Bearer nobodys-secret", "Basic dXNlcjpwYXNz", "nobodys-secret", "Bearer \u{fc}"] {
            for (method, path, body) in
                REQUESTS.into_iter().filter(|(_, path, _)| path.starts_with("/v1/") && !path.ends_with("nowhere"))
            {
                let answer = http.request(method, path, &[("Authorization", wrong), ("Content-Type", "application/json")], body);
                if ["/v1/hello", "/v1/status", "/v1/openapi.json"].contains(&path) {
                    assert_eq!(answer.status, 200, "these are everybody's: {path}");
                } else {
                    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{wrong}: {path}");
                    assert!(!answer.body.contains("nobodys-secret"), "an error repeats the secret: {}", answer.body);
                }
            }
        }
    }
    assert_eq!(broker.stored(), before);
}

#[test]
fn request_sent_byte_by_byte_is_checked() {
    let broker = broker_with_a_victim(&[]);
    let before = broker.stored();
    let page = [("Origin", "https://evil.example"), ("Content-Type", "application/json")];
    for http in both(&broker) {
        let mut wire = http.connect();
        for byte in http.written("POST", "/v1/send", &page, REQUESTS[11].2) {
            if wire.write_all(&[byte]).is_err() {
                break; // refused early
            }
        }
        assert_eq!(read_answer(wire).code(), "forbidden");
    }
    assert_eq!(broker.stored(), before);
}
