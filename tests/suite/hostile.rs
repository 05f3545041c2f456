//! Bad input gets a clear refusal with a stable code, stores nothing, uses bounded memory and disturbs nobody else.

use crate::support::{
    Broker,
    broker::signal,
    events::Peer,
    eventually,
    http::{Answer, Http},
};
use serde_json::{Value, json};

/// The text limit of these brokers in bytes, low so that oversized texts are small.
const TEXT_LIMIT: usize = 1_000;
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A broker with one peer whose name is `victim`.
fn broker() -> (Broker, Peer) {
    let broker = Broker::with(&[("CLAUDE_PEERS_TEXT_LIMIT", &TEXT_LIMIT.to_string()), ("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    let victim = Peer::register(&broker.http(), "victim", json!({"cwd": "/victim"}));
    (broker, victim)
}

fn both(broker: &Broker) -> [Http; 2] {
    [broker.http(), broker.tcp()]
}

fn is_well(broker: &Broker) {
    for http in both(broker) {
        assert_eq!(http.post("/v1/send", &json!({"to": "victim", "text": "still there?"})).status, 200);
    }
}

// Clients that leave.

#[test]
fn requests_of_clients_that_left_are_run() {
    const CLIENTS: usize = 100;
    let (broker, _victim) = broker();
    let before = broker.stored().0;
    signal(broker.pid(), "STOP");
    for number in 0..CLIENTS {
        let body = json!({"to": "victim", "text": format!("from {number}")}).to_string();
        let http = broker.http();
        let request = http.written("POST", "/v1/send", &[JSON], &body);
        http.connect().write_all(&request).unwrap();
    }
    signal(broker.pid(), "CONT");
    let all = before + i64::try_from(CLIENTS).unwrap();
    eventually("every message is stored", || (broker.stored().0 == all).then_some(()));
}

// What the log shows.

#[test]
fn log_shows_no_escapes_of_a_client() {
    let broker = Broker::start();
    broker.http().request("GET", "/v1/\u{202e}\u{9b}", &[("Origin", "http://evil.example")], "");
    let version = "1\n2026-01-01T00:00:00Z  INFO forged\u{1b}[2J\u{1b}]8;;http://evil.example\u{7}\u{202e}";
    Peer::register(&broker.http(), "odd", json!({"client": {"name": "x", "version": version}}));
    let log = eventually("the registration is logged", || Some(broker.log()).filter(|log| log.contains("forged")));
    assert!(!log.contains(['\u{1b}', '\u{7}', '\u{202e}', '\u{9b}']), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01")), "{log}");
}

// The content of requests.

#[test]
fn invalid_request_stores_nothing() {
    let (broker, victim) = broker();
    let before = broker.stored();
    let register = |field: &str, value: Value| {
        let mut facts = json!({"client": {"name": "x", "version": "1"}, "instance": "x", "pid": 1, "cwd": "/tmp"});
        facts[field] = value;
        ("/v1/register", facts)
    };
    let send = |to: Value, text: Value| ("/v1/send", json!({"to": to, "text": text}));
    let sent_with = |field: &str, value: Value| ("/v1/send", json!({"to": "victim", "text": "x", field: value}));
    let long = "x".repeat(TEXT_LIMIT + 1);
    let git = |directory: &str| json!({"commonDir": directory, "head": "/tmp/HEAD", "repo": "x"});
    let cases: Vec<(&str, u16, (&str, Value))> = vec![
        ("invalid_request", 400, ("/v1/send", json!({}))),
        ("invalid_request", 400, ("/v1/send", json!([]))),
        ("invalid_request", 400, ("/v1/send", json!("text"))),
        ("invalid_request", 400, ("/v1/send", Value::Null)),
        ("invalid_request", 400, ("/v1/send", json!({"to": "victim"}))),
        ("invalid_request", 400, send(json!(1), json!("x"))),
        ("invalid_request", 400, send(json!("victim"), json!(["x"]))),
        ("invalid_request", 400, send(json!("victim"), Value::Null)),
        ("empty_message", 400, send(json!("victim"), json!(""))),
        ("empty_message", 400, send(json!("victim"), json!(" \n\t"))),
        ("too_large", 413, send(json!("victim"), json!(long))),
        ("invalid_id", 400, send(json!(""), json!("x"))),
        ("invalid_id", 400, send(json!("a b"), json!("x"))),
        ("invalid_id", 400, send(json!("../../etc/passwd"), json!("x"))),
        ("invalid_id", 400, send(json!("v\u{0}"), json!("x"))),
        ("invalid_id", 400, send(json!("ü"), json!("x"))),
        ("invalid_id", 400, send(json!("a".repeat(65)), json!("x"))),
        ("peer_not_found", 404, send(json!("a".repeat(64)), json!("x"))),
        ("no_mailbox", 409, send(json!("cli"), json!("x"))),
        ("no_mailbox", 409, send(json!("broker"), json!("x"))),
        ("invalid_id", 400, sent_with("replyTo", json!("m01-abc"))),
        ("invalid_id", 400, sent_with("replyTo", json!("'; DROP TABLE message; --"))),
        ("message_not_found", 404, sent_with("replyTo", json!("m999-abcdef"))),
        ("invalid_request", 400, sent_with("key", json!(""))),
        ("invalid_request", 400, sent_with("key", json!("a b"))),
        ("invalid_request", 400, sent_with("key", json!("a\u{7}"))),
        ("invalid_request", 400, sent_with("key", json!("k".repeat(129)))),
        ("invalid_path", 400, register("cwd", json!(""))),
        ("invalid_path", 400, register("cwd", json!("tmp"))),
        ("invalid_path", 400, register("cwd", json!("/tmp\n/x"))),
        ("invalid_path", 400, register("cwd", json!("/tmp/\u{1b}[2J"))),
        ("invalid_path", 400, register("cwd", json!("/tmp/\u{0}"))),
        ("invalid_path", 400, register("cwd", json!("/tmp/\u{9b}31m"))),
        ("invalid_path", 400, register("cwd", json!(format!("/{}", "x".repeat(4_096))))),
        ("invalid_path", 400, register("git", git("relative/.git"))),
        ("invalid_path", 400, register("git", git("/tmp/\u{7}"))),
        ("invalid_request", 400, register("instance", json!(""))),
        ("invalid_request", 400, register("instance", json!("two words"))),
        ("invalid_request", 400, register("sessionId", json!("\u{1b}[31m"))),
        ("invalid_request", 400, register("sessionId", json!("s".repeat(129)))),
        ("invalid_request", 400, register("pid", json!(-1))),
        ("invalid_request", 400, register("pid", json!(4_294_967_296_u64))),
        ("invalid_request", 400, register("delivery", json!("pigeon"))),
        ("unknown_scope", 400, ("/list-peers", json!({"scope": "galaxy", "cwd": "/", "git_root": null}))),
        ("invalid_path", 400, ("/list-peers", json!({"scope": "repo", "cwd": "x", "git_root": null}))),
        ("invalid_id", 400, ("/list-peers", json!({"scope": "machine", "cwd": "/", "git_root": null, "exclude_id": "a b"}))),
        ("invalid_id", 400, ("/poll-messages", json!({"id": "a b"}))),
        ("invalid_path", 400, ("/register", json!({"pid": 1, "cwd": "/\u{1b}", "git_root": null, "tty": null, "summary": ""}))),
        ("invalid_path", 400, ("/register", json!({"pid": 1, "cwd": "/", "git_root": "x", "tty": null, "summary": ""}))),
        (
            "too_large",
            413,
            ("/register", json!({"pid": 1, "cwd": "/", "git_root": null, "tty": null, "summary": "x".repeat(1_001)})),
        ),
        ("invalid_request", 400, ("/register", json!({"pid": "1", "cwd": "/", "git_root": null, "tty": null, "summary": ""}))),
        ("too_large", 413, ("/send-message", json!({"from_id": "cli", "to_id": victim.id, "text": long}))),
        ("invalid_id", 400, ("/send-message", json!({"from_id": "c l i", "to_id": victim.id, "text": "x"}))),
    ];
    let own_cases = [
        ("too_large", 413, ("/v1/set-summary", json!({"summary": "x".repeat(1_001), "source": "session"}))),
        ("invalid_request", 400, ("/v1/set-summary", json!({"summary": "x", "source": "root"}))),
        ("invalid_request", 400, ("/v1/take", json!({"lease": "l", "route": "pigeon"}))),
        ("invalid_request", 400, ("/v1/take", json!({"lease": "l", "route": "channel"}))),
        ("invalid_request", 400, ("/v1/take", json!({"lease": "", "route": "check_messages"}))),
        ("invalid_request", 400, ("/v1/take", json!({"lease": "l", "route": "check_messages", "waitSeconds": -1}))),
        ("invalid_request", 400, ("/v1/take", json!({"lease": "l", "route": "check_messages", "waitSeconds": 1e99}))),
        (
            "invalid_request",
            400,
            ("/v1/acknowledge", json!({"route": "channel", "messages": [{"id": "m1", "outcome": "delivered"}]})),
        ),
        (
            "invalid_request",
            400,
            ("/v1/acknowledge", json!({"route": "channel", "messages": [{"id": "m1-a", "outcome": "eaten"}]})),
        ),
    ];
    for http in both(&broker) {
        for (code, status, (path, body)) in &cases {
            let answer = http.post(path, body);
            assert_eq!((answer.status, answer.code().as_str()), (*status, *code), "{path} {body}");
            says_it_in_words(&answer);
        }
        for (code, status, (path, body)) in &own_cases {
            let answer = victim.over(&http).post(path, body);
            assert_eq!((answer.status, answer.code().as_str()), (*status, *code), "{path} {body}");
            says_it_in_words(&answer);
        }
    }
    assert_eq!(broker.stored(), before);
    is_well(&broker);
}

/// Asserts that this is a sentence for people: some words, no control characters, no echo of long input.
fn says_it_in_words(answer: &Answer) {
    let error = serde_json::from_str::<Value>(&answer.body).unwrap()["error"].clone();
    let words = error["message"].as_str().or(error.as_str()).unwrap();
    assert!(words.contains(' ') && words.len() < 500 && !words.contains(char::is_control), "{}", answer.body);
}

#[test]
fn invalid_query_gets_its_error_code() {
    let (broker, _) = broker();
    let cases = [
        ("invalid_request", "/v1/peers"),
        ("unknown_scope", "/v1/peers?scope=galaxy"),
        ("unknown_scope", "/v1/peers?scope=MACHINE"),
        ("unknown_scope", "/v1/peers?scope=%00"),
        ("invalid_request", "/v1/peers?scope=repo"),
        ("invalid_path", "/v1/peers?scope=repo&cwd=tmp"),
        ("invalid_path", "/v1/peers?scope=repo&cwd=%2Ftmp%0A"),
        ("invalid_path", "/v1/peers?scope=machine&cwd=%2F%1B%5B2J"),
        ("invalid_request", "/v1/peers?scope=machine&scope=repo"),
        ("invalid_request", "/v1/history?limit=0"),
        ("invalid_request", "/v1/history?limit=1001"),
        ("invalid_request", "/v1/history?limit=-1"),
        ("invalid_request", "/v1/history?limit=many"),
        ("invalid_id", "/v1/history?before=m01"),
        ("invalid_id", "/v1/history?peer=a%20b"),
        ("invalid_id", "/v1/messages/nonsense"),
        ("invalid_id", "/v1/messages/m99999999999999999999-abc"),
        ("invalid_id", "/v1/messages/m1-abc%27%20OR%201=1"),
        ("message_not_found", "/v1/messages/m1-abcdef"),
        ("peer_not_found", "/v1/whoami"),
        ("peer_not_found", "/v1/whoami?pids=,,x,-1,99999999999"),
        ("unauthorized", "/v1/events?after=1"),
    ];
    for http in both(&broker) {
        for (code, path) in cases {
            let answer = http.get(path);
            assert_eq!(answer.code(), code, "{path}");
            assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
        }
    }
}

#[test]
fn unknown_fields_are_ignored() {
    let (broker, _) = broker();
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let body = format!(r#"{{"to":"victim","text":"x","later":{{"a":[1,{{}}]}},"deep":{deep}}}"#);
    assert_eq!(broker.http().request("POST", "/v1/send", &[JSON], &body).status, 200);
    assert_eq!(broker.http().get("/v1/peers?scope=machine&colour=blue").status, 200);
    is_well(&broker);
}

#[test]
fn body_that_is_not_json_is_refused() {
    let (broker, _) = broker();
    let before = broker.stored();
    let deep = |open: &str, close: &str| open.repeat(10_000) + &close.repeat(10_000);
    let bodies = [
        "".to_owned(),
        "{".to_owned(),
        r#"{"to":"#.to_owned(),
        r#"{"to":"victim","text":"x"} and more"#.to_owned(),
        r#"{"to":"victim","to":"victim","text":"x"}"#.to_owned(),
        r#"{"to":"victim","text":"\ud800"}"#.to_owned(),
        "{\"to\":\"victim\",\"text\":\"a raw \u{1} byte\"}".to_owned(),
        r#"{'to':'victim','text':'x'}"#.to_owned(),
        "to=victim&text=x".to_owned(),
        "nul".to_owned(),
        deep("[", "]"),
        deep("{\"to\":", "}"),
        format!(r#"{{"to":"victim","text":{}}}"#, deep("[", "]")),
    ];
    let invalid_utf8 =
        [&b"{\"to\":\"victim\",\"text\":\"\xff\xfe\"}"[..], b"\xff\xfe{\x00}\x00", b"{\"to\":\"victim\",\"text\":\"\xc0\xaf\"}"];
    for http in both(&broker) {
        for path in ["/v1/send", "/send-message"] {
            for body in &bodies {
                let answer = http.request("POST", path, &[JSON, ("Content-Length", &body.len().to_string())], body);
                let shown: String = body.chars().take(60).collect();
                assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{path}: {shown}");
            }
            for body in invalid_utf8 {
                let mut request = http.written("POST", path, &[JSON, ("Content-Length", &body.len().to_string())], "");
                request.extend(body);
                assert_eq!(http.raw(&request).code(), "invalid_request", "{path}: {body:?}");
            }
        }
    }
    assert_eq!(broker.stored(), before);
    is_well(&broker);
}

#[test]
fn oversized_body_is_refused_with_or_without_length() {
    let (broker, _) = broker();
    let (before, memory) = (broker.stored(), broker.memory());
    let huge = " ".repeat(200_000);
    for http in both(&broker) {
        for path in ["/v1/send", "/send-message", "/v1/stop"] {
            for announced in ["100000", "99999999999"] {
                let answer = http.request("POST", path, &[JSON, ("Content-Length", announced)], "{");
                assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"), "{path}: {announced}");
            }
            let chunked = format!("{:x}\r\n{huge}\r\n0\r\n\r\n", huge.len());
            let mut request = http.written("POST", path, &[JSON, ("Transfer-Encoding", "chunked")], "");
            request.extend(chunked.as_bytes());
            let answer = http.raw(&request);
            assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"), "{path}: in chunks");
        }
    }
    assert_eq!(broker.stored(), before);
    assert!(broker.memory() < memory + 32 * 1024, "{memory} KiB before, {} KiB after", broker.memory());
    is_well(&broker);
}

#[test]
fn unknown_paths_and_methods_get_their_codes() {
    let (broker, _) = broker();
    for http in both(&broker) {
        for (method, path, code) in [
            ("GET", "/v1", "not_found"),
            ("GET", "/v1/", "not_found"),
            ("GET", "/v1/nowhere", "not_found"),
            ("GET", "/v1/../v1/status", "not_found"),
            ("GET", "//v1/status", "not_found"),
            ("GET", "/v1/%73tatus", "not_found"),
            ("GET", "/V1/status", "not_found"),
            ("GET", "/v1/send", "method_not_allowed"),
            ("DELETE", "/v1/send", "method_not_allowed"),
            ("PUT", "/v1/messages/m1-abcdef", "method_not_allowed"),
            ("BREW", "/v1/send", "method_not_allowed"),
            ("POST", "/v1/hello", "method_not_allowed"),
            ("POST", "/health", "method_not_allowed"),
            ("GET", "/send-message", "method_not_allowed"),
            ("GET", "/v1/messages/%FF", "invalid_id"),
        ] {
            let answer = http.request(method, path, &[JSON], "");
            if path.starts_with("/v1/") || code != "not_found" {
                assert_eq!(answer.code(), code, "{method} {path}");
            }
            let status =
                [("not_found", 404), ("method_not_allowed", 405), ("invalid_id", 400)].into_iter().find(|known| known.0 == code);
            assert_eq!(Some(answer.status), status.map(|known| known.1), "{method} {path}");
        }
    }
}

// Input that is not a request.

#[test]
fn garbage_gets_a_4xx_or_a_closed_connection() {
    let (broker, _) = broker();
    let before = broker.stored();
    let head = |line: &str, headers: &str| format!("{line}\r\nHost: 127.0.0.1:{}\r\n{headers}\r\n", broker.port).into_bytes();
    let post = |headers: &str| head("POST /v1/send HTTP/1.1", &format!("Content-Type: application/json\r\n{headers}"));
    let many_headers: String = (0..500).map(|n| format!("X-Header-{n}: x\r\n")).collect();
    let garbage: Vec<(&str, Vec<u8>)> = vec![
        ("noise", b"\x00\x01\x02\xff\xfe\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        ("a line of text", b"hello there\r\n\r\n".to_vec()),
        ("a version from the future", head("GET /health HTTP/9.9", "")),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("a header without a name", head("GET /health HTTP/1.1", ": x\r\n")),
        ("a header with a newline in its name", head("GET /health HTTP/1.1", "X\r-Y: x\r\n")),
        ("a zero byte in a header", head("GET /health HTTP/1.1", "X: a\0b\r\n")),
        ("a huge header", head("GET /health HTTP/1.1", &format!("X: {}\r\n", "x".repeat(200_000)))),
        ("endless headers", head("GET /health HTTP/1.1", &many_headers)),
        ("a huge path", head(&format!("GET /{} HTTP/1.1", "x".repeat(200_000)), "")),
        ("a space in the path", head("GET /he alth HTTP/1.1", "")),
        ("two lengths", post("Content-Length: 2\r\nContent-Length: 3\r\n")),
        ("an endless length", post("Content-Length: 18446744073709551615\r\n")),
        ("a negative length", post("Content-Length: -1\r\n")),
        ("a length in words", post("Content-Length: many\r\n")),
        ("an unknown transfer", post("Transfer-Encoding: magic\r\n")),
        ("chunked, but not last", post("Transfer-Encoding: chunked, gzip\r\n")),
        ("a chunk without a size", [post("Transfer-Encoding: chunked\r\n"), b"zz\r\n{}\r\n0\r\n\r\n".to_vec()].concat()),
        ("a proxy's request", head("CONNECT evil.example:443 HTTP/1.1", "")),
    ];
    for http in both(&broker) {
        for (what, bytes) in &garbage {
            let mut conversation = http.converse();
            drop(conversation.say(bytes)); // it may be refused before it is complete
            match conversation.answer() {
                Ok(answer) => assert!((400..500).contains(&answer.status), "{what}: HTTP {}", answer.status),
                Err(_) => assert!(conversation.is_closed(), "{what}"),
            }
        }
    }
    assert_eq!(broker.stored(), before);
    is_well(&broker);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (broker, _) = broker();
    for http in both(&broker) {
        let keep = [("Connection", "keep-alive"), JSON];
        let health = http.written("GET", "/health", &keep, "");
        let send = http.written("POST", "/v1/send", &keep, &json!({"to": "victim", "text": "one of many"}).to_string());
        let before = broker.stored().0;
        let mut conversation = http.converse();
        conversation.say(&[&health[..], &send, &send, &health, b"\x00garbage\r\n\r\n"].concat()).unwrap();
        let statuses: Vec<u16> = (0..5).map(|_| conversation.answer().unwrap().status).collect();
        assert_eq!(statuses, [200, 200, 200, 200, 400]);
        assert!(conversation.is_closed());
        assert_eq!(broker.stored().0, before + 2);
    }
}

#[test]
fn http_1_0_is_understood() {
    let (broker, _) = broker();
    for http in both(&broker) {
        let request = format!("GET /health HTTP/1.0\r\nHost: 127.0.0.1:{}\r\n\r\n", broker.port);
        let mut conversation = http.converse();
        conversation.say(request.as_bytes()).unwrap();
        assert_eq!(conversation.answer().unwrap().json()["status"], "ok");
        assert!(conversation.is_closed());
    }
}

#[test]
fn half_a_request_has_no_effect() {
    let (broker, _) = broker();
    let before = broker.stored();
    for http in both(&broker) {
        let whole = http.written("POST", "/v1/send", &[JSON], &json!({"to": "victim", "text": "half"}).to_string());
        for length in 1..whole.len() {
            drop(http.connect().write_all(&whole[..length]));
        }
        assert_eq!(http.get("/health").status, 200);
    }
    assert_eq!(broker.stored(), before);
    is_well(&broker);
}
