//! The stream of peers and messages, and the filters of the history.

use super::{peer, send, take};
use crate::support::{Broker, events::Events};
use serde_json::{Value, json};

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
