//! One route for a message, whichever are open.

use super::Scene;
use crate::support::{Broker, events::Peer, eventually, folder, hooks::Claude, http::Conversation, mcp::Start};
use serde_json::{Value, json};

#[test]
fn a_session_with_a_waiter_and_a_channel_gets_a_message_by_the_hook_alone() {
    let (broker, place) = (Broker::start(), folder());
    let start = Start { broker: &broker, directory: place.path(), session_id: "s-1", delivery: "", env: Vec::new() };
    let flags = ["--dangerously-load-development-channels", "server:claude-peers"];
    let mut claude = Claude::launch(&start, &flags, "");
    claude.session.handshake();
    let mut scene = Scene { broker, place, claude };
    eventually("the session is registered", || scene.peers().pop());
    assert_eq!(scene.peer()["delivery"], "channel");
    let hook = scene.waiter("SessionStart");
    let sent = scene.send("hello");
    assert!(hook.woke().contains("\nhello\n"));
    scene.assert_delivered_by_hook(&sent["messageId"]);
    scene.send("and in the turn");
    let said = scene.claude.hook("PostToolUse", "s-1", json!({})).put_beside("PostToolUse");
    assert!(said.contains("and in the turn"), "{said}");
    assert_eq!(scene.claude.session.pushes_so_far(), [] as [Value; 0]);
    assert_eq!(scene.claude.session.check(), [] as [Value; 0]);
}

#[test]
fn the_users_choice_of_a_route_keeps_hooks_out() {
    let (broker, place) = (Broker::start(), folder());
    for (delivery, reason) in [
        ("pull", "pull: asked for by CLAUDE_PEERS_DELIVERY"),
        ("channel", "channel: asked for by CLAUDE_PEERS_DELIVERY, not confirmed yet"),
    ] {
        let start = Start { broker: &broker, directory: place.path(), session_id: delivery, delivery, env: Vec::new() };
        let mut claude = Claude::launch(&start, &[], "");
        claude.session.handshake();
        let id = claude.session.id();
        claude.hook("SessionStart", delivery, json!({})).left_silently();
        let sent = broker.http().post("/v1/send", &json!({"to": id, "text": "hello"})).json();
        claude.hook("PostToolUse", delivery, json!({})).left_silently();
        let me = claude.session.tool("list_peers", json!({"scope": "machine"}));
        assert_eq!(me["self"]["deliveryReason"], reason);
        broker.message_once("delivered", &sent["messageId"]);
    }
}

#[test]
fn a_hook_that_dies_half_way_leaves_its_messages_to_the_next_one_marked() {
    let mut broker = Broker::start();
    let peer = Peer::register(&broker.http(), "hooked", json!({}));
    let sent = broker.http().post("/v1/send", &json!({"to": peer.id, "text": "hello"})).json();
    let take = |lease: &str| json!({"lease": lease, "route": "hook"});
    let as_peer = peer.over(&broker.http());
    let mut hook = as_peer.converse();
    for _ in 0..2 {
        let answer = hook.ask("POST", "/v1/take", &take("half-way").to_string()).json();
        assert_eq!((&answer["messages"][0]["id"], answer["messages"][0].get("repeat")), (&sent["messageId"], None));
        assert_eq!(as_peer.post("/v1/take", &take("other")).json()["messages"], json!([]), "it is in the hands of that one");
    }
    drop(hook);
    let mut next = as_peer.converse();
    let marked = |hook: &mut Conversation, lease: &str| {
        let message = eventually("the message waits again", || {
            hook.ask("POST", "/v1/take", &take(lease).to_string()).json()["messages"].as_array().unwrap().first().cloned()
        });
        assert_eq!((&message["id"], &message["repeat"]), (&sent["messageId"], &json!(true)));
    };
    marked(&mut next, "next");

    // With the broker its connections go, and whoever had something in hand.
    broker.restart();
    let mut last = peer.again(&broker.http()).over(&broker.http()).converse();
    marked(&mut last, "last");
    let settle = json!({"route": "hook", "messages": [{"id": sent["messageId"], "outcome": "delivered"}]});
    assert_eq!(last.ask("POST", "/v1/settle", &settle.to_string()).json()["changed"], 1);
    drop(last);
    assert_eq!(broker.message(&sent["messageId"])["state"], "delivered");
}
