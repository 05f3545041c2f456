//! The stream of peers and messages, and the filters of the history.

use super::{peer, send, take};
use crate::support::{
    Broker,
    events::{Events, Peer},
};
use serde_json::{Value, json};
use std::{fs, process::Command};

/// The next event of this kind that `wanted` picks.
fn next(events: &mut Events, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    std::iter::from_fn(|| events.next()).find(|(name, data)| name == kind && wanted(data)).map(|(_, data)| data).unwrap()
}

fn texts(page: &Value) -> Vec<&str> {
    page["messages"].as_array().unwrap().iter().map(|message| message["text"].as_str().unwrap()).collect()
}

#[test]
fn stream_shows_peers_and_messages_as_they_change() {
    let broker = Broker::start();
    let http = broker.http();
    let shop = peer(&http, "shop");
    let mut events = Events::watch(&http);
    assert_eq!(events.next().map(|(name, data)| (name, data["name"].clone())), Some(("peer".to_owned(), json!("shop"))));
    assert_eq!(events.next(), Some(("ready".to_owned(), Value::Null)));

    let web = peer(&http, "web");
    next(&mut events, "peer", |peer| peer["name"] == "web");
    let connected = web.follow(&http);
    next(&mut events, "peer", |peer| peer["name"] == "web" && peer["status"] == "connected");
    let id = send(&web.over(&http), "shop", "Which port?", None);
    let queued = next(&mut events, "message", |_| true);
    assert_eq!((&queued["messageId"], &queued["text"], &queued["state"]), (&id, &json!("Which port?"), &json!("queued")));
    assert_eq!((&queued["fromName"], &queued["toName"]), (&json!("web"), &json!("shop")));
    next(&mut events, "peer", |peer| peer["name"] == "shop" && peer["waiting"] == 1);
    take(&shop.over(&http));
    assert_eq!(next(&mut events, "message", |_| true)["state"], "delivered");
    web.over(&http).post("/v1/set-summary", &json!({"summary": "Checkout", "source": "session"}));
    next(&mut events, "peer", |peer| peer["name"] == "web" && peer["summary"] == "Checkout");
    drop(connected);
    next(&mut events, "peer", |peer| peer["name"] == "web" && peer["status"] == "reconnecting");
    web.over(&http).post("/v1/unregister", &json!({}));
    assert_eq!(next(&mut events, "left", |_| true), json!(web.id));
    http.post("/v1/stop", &json!({}));
    assert_eq!(events.next(), None);
}

#[test]
fn activity_is_what_the_agent_says() {
    let broker = Broker::start();
    let http = broker.http();
    let file = broker.folder().join("status.json");
    let says = |status: Value| fs::write(&file, status.to_string()).unwrap();
    says(json!({"status": "idle", "statusUpdatedAt": 1_747_400_000_000_i64}));
    let shop = Peer::register(&http, "shop", json!({"cwd": "/src/shop", "statusFile": file}));
    let _connected = shop.follow(&http);
    let listed = http.get("/v1/peers?scope=machine").json()["peers"][0]["activity"].clone();
    assert_eq!(listed, json!({"doing": "idle", "since": "2025-05-16T12:53:20.000Z"}));
    let mut events = Events::watch(&http);
    next(&mut events, "ready", |_| true);
    says(json!({"status": "waiting", "waitingFor": "permission prompt\u{1b}[31m"}));
    let peer = next(&mut events, "peer", |peer| peer["activity"]["doing"] == "needs_you");
    assert!(peer["activity"]["needs"].as_str().unwrap().starts_with("permission prompt"), "{peer}");
    assert!(!peer.to_string().contains("\\u001b"), "{peer}");
    says(json!({"status": "busy"}));
    assert_eq!(next(&mut events, "peer", |_| true)["activity"], json!({"doing": "working"}));
    // A file that is replaced is seen, too.
    fs::write(file.with_extension("new"), json!({"status": "idle"}).to_string()).unwrap();
    fs::rename(file.with_extension("new"), &file).unwrap();
    assert_eq!(next(&mut events, "peer", |_| true)["activity"], json!({"doing": "idle"}));
    for unknown in [json!({"status": "dancing"}), json!({"status": 7}), json!([]), json!("x".repeat(300_000))] {
        says(unknown);
        assert_eq!(next(&mut events, "peer", |_| true)["activity"], Value::Null);
        says(json!({"status": "busy"}));
        next(&mut events, "peer", |peer| peer["activity"]["doing"] == "working");
    }
}

#[test]
fn status_files_cannot_hang_the_broker() {
    let broker = Broker::start();
    let http = broker.http();
    let pipe = broker.folder().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (name, file) in [("pipe", pipe.to_str().unwrap()), ("folder", "/tmp"), ("device", "/dev/zero"), ("relative", "x")] {
        let peer = http.post(
            "/v1/register",
            &json!({"client": {"name": "test", "version": "0"}, "instance": name, "pid": std::process::id(), "cwd": "/tmp", "statusFile": file}),
        );
        assert_eq!(peer.status, if name == "relative" { 400 } else { 200 }, "{}", peer.body);
    }
    let peers = http.get("/v1/peers?scope=machine").json();
    assert!(peers["peers"].as_array().unwrap().iter().all(|peer| peer["activity"].is_null()), "{peers}");
}

#[test]
fn sessions_watch_nobody() {
    let broker = Broker::start();
    let shop = peer(&broker.http(), "shop");
    let refused = shop.over(&broker.http()).get("/v1/watch");
    assert_eq!((refused.status, refused.code()), (403, "forbidden".to_owned()));
}

#[test]
fn slow_watcher_is_told_what_it_missed() {
    let broker = Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    let http = broker.http();
    let shop = peer(&http, "shop");
    let mut events = Events::watch(&http);
    next(&mut events, "ready", |_| true);
    // Nothing reads the stream, so it fills up, whatever the kernel's buffers hold.
    let text = "x".repeat(200_000);
    let web = peer(&http, "web").over(&http);
    let mut sent = 0;
    for number in 0..700 {
        send(&web, &shop.id, &format!("{number} {text}"), None);
        sent += 1;
    }
    let (mut seen, mut missed) = (0, 0);
    while seen + missed < sent {
        match events.next().unwrap() {
            (name, _) if name == "message" => seen += 1,
            (name, count) if name == "missed" => missed += count.as_u64().unwrap(),
            _ => {}
        }
    }
    assert!(missed > 0, "all {seen} were kept for a watcher that reads nothing");
}

#[test]
fn history_shows_a_conversation() {
    let broker = Broker::start();
    let http = broker.http();
    let (shop, web) = (peer(&http, "shop"), peer(&http, "web"));
    let (shop, web) = (shop.over(&http), web.over(&http));
    let question = send(&web, "shop", "Which port?", None);
    send(&web, "shop", "Something else", None);
    let answer = send(&shop, "web", "8080", Some(&question));
    let thanks = send(&web, "shop", "And the host?", Some(&answer));
    send(&shop, "web", "localhost", Some(&thanks));
    send(&shop, "web", "8080, as I said", Some(&question));
    let expected = ["8080, as I said", "localhost", "And the host?", "8080", "Which port?"];
    for id in [&question, &answer, &thanks] {
        let page = http.get(&format!("/v1/history?thread={}", id.as_str().unwrap())).json();
        assert_eq!(texts(&page), expected, "from {id}");
    }
    let unknown = http.get("/v1/history?thread=m999-abcdef").json();
    assert_eq!(texts(&unknown), Vec::<&str>::new());
    let page = http.get(&format!("/v1/history?limit=2&thread={}", answer.as_str().unwrap())).json();
    assert_eq!(texts(&page), expected[..2]);
    let rest = http.get(&format!("/v1/history?thread={}&before={}", answer.as_str().unwrap(), page["next"].as_str().unwrap()));
    assert_eq!(texts(&rest.json()), expected[2..]);
    let other = peer(&http, "other").over(&http);
    assert_eq!(texts(&other.get(&format!("/v1/history?thread={}", answer.as_str().unwrap())).json()), Vec::<&str>::new());
}

#[test]
fn history_is_filtered_by_time_and_state() {
    let broker = Broker::start();
    let http = broker.http();
    let (shop, web) = (peer(&http, "shop"), peer(&http, "web"));
    let (shop, web) = (shop.over(&http), web.over(&http));
    send(&web, "shop", "first", None);
    take(&shop);
    let id = send(&web, "shop", "second", None);
    let page = |query: &str| texts(&http.get(&format!("/v1/history?{query}")).json()).join(" ");
    assert_eq!(page("state=queued"), "second");
    assert_eq!(page("state=delivered"), "first");
    assert_eq!(page("state=held"), "");
    let second = http.get(&format!("/v1/messages/{}", id.as_str().unwrap())).json();
    let sent_at = second["sentAt"].as_str().unwrap();
    assert!(page(&format!("since={sent_at}")).starts_with("second"));
    assert_eq!(page("since=2999-01-01T00:00:00Z"), "");
    assert_eq!(page("since=1999-01-01T00:00:00Z"), "second first");
    for wrong in ["state=lost", "since=yesterday", "thread=m"] {
        assert_eq!(http.get(&format!("/v1/history?{wrong}")).status, 400, "{wrong}");
    }
}
