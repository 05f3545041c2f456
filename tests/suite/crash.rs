//! A broker that is killed between commit and answer, or while messages are on their way, neither loses nor doubles them.

use crate::support::{Broker, events::Peer, eventually};
use serde_json::json;

/// Settings that lift the limits for a load.
const UNLIMITED: [(&str, &str); 2] = [("CLAUDE_PEERS_RATE_LIMIT", "0"), ("CLAUDE_PEERS_WAITING_LIMIT", "1000000")];

#[test]
fn answer_lost_after_commit_makes_no_duplicate() {
    let mut broker = Broker::with(&UNLIMITED);
    let reader = Peer::register(&broker.http(), "reader", json!({}));
    for number in 0..5 {
        let message = json!({"to": reader.id, "text": format!("question {number}"), "key": format!("key-{number}")});
        // The broker commits the message and is killed before the client reads the answer.
        let mut lost = broker.http().converse();
        let headers = [("Content-Type", "application/json")];
        lost.say(&broker.http().written("POST", "/v1/send", &headers, &message.to_string())).unwrap();
        let stored = || broker.count("SELECT count(*) FROM message");
        eventually("the message is committed", || (stored() == number + 1).then_some(()));
        broker.restart();

        let again = broker.http().post("/v1/send", &message).json();
        assert_eq!((again["state"].as_str(), broker.stored().0), (Some("queued"), number + 1));
        assert_eq!(broker.http().post("/v1/send", &message).json()["messageId"], again["messageId"]);
        let other = json!({"to": reader.id, "text": "another text", "key": format!("key-{number}")});
        assert_eq!(broker.http().post("/v1/send", &other).code(), "idempotency_conflict");
    }
    let reader = reader.again(&broker.http());
    let taken = reader.over(&broker.http()).post("/v1/take", &json!({"lease": "l", "route": "check_messages"})).json();
    let texts: Vec<_> = taken["messages"].as_array().unwrap().iter().map(|message| message["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["question 0", "question 1", "question 2", "question 3", "question 4"]);
    assert!(taken["messages"].as_array().unwrap().iter().all(|message| message.get("repeat").is_none()), "{taken}");
}

#[test]
fn unacknowledged_messages_are_repeated_after_a_kill() {
    let mut broker = Broker::with(&UNLIMITED);
    let facts = json!({"delivery": "channel"});
    let (pushed, taker) = (Peer::register(&broker.http(), "pushed", facts), Peer::register(&broker.http(), "taker", json!({})));
    let mut events = pushed.follow(&broker.http());
    for to in [&pushed, &taker] {
        broker.http().post("/v1/send", &json!({"to": to.id, "text": "under way"})).json();
    }
    let (event, first_push) = events.next().unwrap();
    assert_eq!((event.as_str(), first_push.get("repeat")), ("message", None));
    let take = json!({"lease": "l", "route": "check_messages"});
    let first_take = taker.over(&broker.http()).post("/v1/take", &take).json();
    assert_eq!(first_take["messages"][0].get("repeat"), None);
    broker.restart();

    // A waiting call must not withhold the messages that the stream was carrying.
    let pushed = pushed.again(&broker.http());
    let mut waiting = pushed.over(&broker.http()).converse();
    let wait = json!({"lease": "w", "route": "check_messages", "waitSeconds": 3600});
    waiting
        .say(&pushed.over(&broker.http()).written("POST", "/v1/take", &[("Content-Type", "application/json")], &wait.to_string()))
        .unwrap();
    eventually("the call waits", || {
        let me = pushed.over(&broker.http()).get("/v1/whoami").json();
        (me["deliveryReason"] == "pull: a call of its tools waits for messages").then_some(())
    });
    let mut events = pushed.follow(&broker.http());
    let (_, again) = events.next().unwrap();
    assert_eq!(again["id"], first_push["id"], "{again}");

    // The same process gets the same messages under the same lease; another process gets them marked as repeats.
    let taker = taker.again(&broker.http());
    let again = taker.over(&broker.http()).post("/v1/take", &take).json();
    assert_eq!(again["messages"][0]["id"], first_take["messages"][0]["id"]);
    let other = Peer::register(&broker.http(), "other", json!({}));
    assert_ne!(other.id, taker.id);
}

#[test]
fn messages_of_a_lost_stream_keep_their_order() {
    let broker = Broker::with(&UNLIMITED);
    let peer = Peer::register(&broker.http(), "peer", json!({"delivery": "channel"}));
    let http = peer.over(&broker.http());
    let send = |text: &str| broker.http().post("/v1/send", &json!({"to": peer.id, "text": text})).json();
    let mut events = peer.follow(&broker.http());
    let first = send("first");
    assert_eq!(events.next().unwrap().1["id"], first["messageId"]);
    drop(events); // it never acknowledges the push
    eventually("the broker sees it", || {
        let me = http.get("/v1/whoami").json();
        (me["status"] != "connected").then_some(())
    });
    send("second");
    let take = |lease: &str| http.post("/v1/take", &json!({"lease": lease, "route": "tool_result"})).json();
    assert_eq!(take("a")["messages"], json!([]), "the second waits for the first");

    let offered = json!({"route": "channel", "messages": [{"id": first["messageId"], "outcome": "offered"}]});
    assert_eq!(http.post("/v1/acknowledge", &offered).json()["changed"], 1);
    let taken = take("b");
    let shown = |at: usize| (taken["messages"][at]["text"].as_str(), taken["messages"][at]["repeat"] == true);
    assert_eq!((shown(0), shown(1)), ((Some("first"), true), (Some("second"), false)), "{taken}");
}

#[test]
fn repeated_release_ends_no_later_lease() {
    let broker = Broker::with(&UNLIMITED);
    let peer = Peer::register(&broker.http(), "peer", json!({}));
    let http = peer.over(&broker.http());
    let sent = broker.http().post("/v1/send", &json!({"to": peer.id, "text": "once"})).json();
    let take = |lease: &str| {
        let taken = http.post("/v1/take", &json!({"lease": lease, "route": "check_messages"})).json();
        taken["messages"].as_array().unwrap().clone()
    };
    for outcome in ["released", "announced"] {
        let acknowledgement = json!({"id": sent["messageId"], "outcome": outcome, "lease": outcome});
        let request = json!({"route": "check_messages", "messages": [acknowledgement]});
        let acknowledge = || http.post("/v1/acknowledge", &request).json()["changed"].clone();
        assert_eq!(take(outcome).len(), 1, "{outcome}");
        assert_eq!(acknowledge(), 1, "{outcome}");
        let again = take("next");
        assert_eq!((again.len(), again[0].get("repeat")), (1, None), "{outcome}");
        // The client did not hear the answer. It repeats the request, which arrives after the next take.
        assert_eq!(acknowledge(), 0, "{outcome}");
        assert_eq!(take("other"), [] as [serde_json::Value; 0], "{outcome}: two calls show it, both without a mark");
        let back = json!({"id": sent["messageId"], "outcome": "released", "lease": "next"});
        assert_eq!(http.post("/v1/acknowledge", &json!({"route": "check_messages", "messages": [back]})).json()["changed"], 1);
    }
}
