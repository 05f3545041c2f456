//! The channel, which counts as proved only after a reply.

use super::{Scene, assert_nothing_more, carried, ids, other_tools, prove_channel};
use crate::support::{Broker, Session, events::Peer, eventually, mcp::Start};
use serde_json::{Value, json};

#[test]
fn proved_channel_repeats_nothing() {
    let mut scene = Scene::new();
    let (mut asker, mut worker) = (scene.pulling("asker"), scene.pushed("worker"));
    prove_channel(&scene, &mut asker, &mut worker, "worker");
    assert_nothing_more(&mut worker);

    let second = asker.send("worker", "and now?")["messageId"].clone();
    assert_eq!(worker.pushed()["meta"]["message_id"], second);
    scene.broker.message_once("offered", &second);
    assert_nothing_more(&mut worker);
    worker.send("asker", "still here"); // writing to the sender proves the channel even without replyTo
    scene.assert_state(&second, "delivered", "reply");

    let third = asker.send("worker", "nobody answers this")["messageId"].clone();
    assert_eq!(worker.pushed()["meta"]["message_id"], third);
    scene.broker.message_once("offered", &third);
    scene.broker.restart();
    worker.id();
    assert_nothing_more(&mut worker);
    scene.assert_state(&third, "offered", "channel");
    let reason = asker.peers()[0]["deliveryReason"].clone();
    assert!(reason.as_str().unwrap().contains(", confirmed 2"), "{reason}");
}

#[test]
fn unproved_push_is_repeated_with_the_next_result() {
    let scene = Scene::new();
    let (mut asker, mut worker) = (scene.pulling("asker"), scene.pushed("worker"));
    for (tool, arguments) in other_tools() {
        let id = asker.send("worker", tool)["messageId"].clone();
        assert_eq!(worker.pushed()["meta"]["message_id"], id);
        scene.broker.message_once("offered", &id);
        let messages = carried(&mut worker, tool, &arguments);
        assert_eq!((ids(&messages), &messages[0]["repeat"]), (vec![id.clone()], &json!(true)), "{tool}");
        let message = scene.broker.message_once("delivered", &id);
        assert_eq!(message["route"], "tool_result", "{tool}");
        assert_nothing_more(&mut worker);
    }
    let id = asker.send("worker", "check_messages")["messageId"].clone();
    worker.pushed();
    scene.broker.message_once("offered", &id);
    let messages = worker.check();
    assert_eq!((ids(&messages), &messages[0]["repeat"]), (vec![id.clone()], &json!(true)));
    assert_eq!(scene.broker.message_once("delivered", &id)["route"], "check_messages");
    assert_nothing_more(&mut worker);
}

#[test]
fn reply_proves_only_its_own_process_channel() {
    let scene = Scene::new();
    let mut asker = scene.pulling("asker");
    let directory = scene.directory("worker");
    let open = || {
        let start =
            Start { broker: &scene.broker, directory: &directory, session_id: "worker", delivery: "channel", env: Vec::new() };
        let mut session = Session::spawn(start.under_claude(&[], &[]));
        session.handshake(); // a tool call would show it the mail for certain
        session
    };
    let mut worker = open();
    eventually("the worker is there", || asker.peers().pop());
    let first = asker.send("worker", "shown by the first channel")["messageId"].clone();
    worker.pushed();
    scene.broker.message_once("offered", &first);
    worker.kill();

    let mut worker = open();
    worker.tool("send_message", json!({"targetPeerId": "asker", "message": "I remember", "replyTo": first}));
    scene.broker.message_once("delivered", &first);
    let second = asker.send("worker", "perhaps nobody sees this")["messageId"].clone();
    worker.pushed();
    scene.broker.message_once("offered", &second);
    let messages = carried(&mut worker, "list_peers", &json!({"scope": "machine"}));
    assert_eq!((ids(&messages), &messages[0]["repeat"]), (vec![second], &json!(true)));
}

#[test]
fn reply_after_another_route_proves_no_channel() {
    let broker = Broker::start();
    for (also_taken, vouches) in [(false, true), (true, false)] {
        let [asker, worker] = ["asker", "worker"].map(|name| {
            Peer::register(&broker.http(), &format!("{name}-{also_taken}"), json!({"delivery": "channel"})).over(&broker.http())
        });
        let worker_id = worker.get("/v1/peers?scope=machine").json()["self"]["id"].clone();
        let sent = asker.post("/v1/send", &json!({"to": worker_id, "text": "can you hear me?"})).json();
        let offered = json!({"route": "channel", "messages": [{"id": sent["messageId"], "outcome": "offered"}]});
        assert_eq!(worker.post("/v1/acknowledge", &offered).json()["changed"], 1);
        if also_taken {
            let taken = worker.post("/v1/take", &json!({"lease": "beside", "route": "tool_result"})).json();
            assert_eq!(taken["messages"][0]["id"], sent["messageId"]);
        }
        worker.post("/v1/send", &json!({"to": sent["from"], "text": "yes", "replyTo": sent["messageId"]})).json();
        let reason = worker.get("/v1/peers?scope=machine").json()["self"]["deliveryReason"].clone();
        assert_eq!(!reason.as_str().unwrap().contains("not confirmed"), vouches, "{reason}");
    }
}

#[test]
fn no_push_before_the_client_is_initialized() {
    let scene = Scene::new();
    let mut asker = scene.pulling("asker");
    let directory = scene.directory("worker");
    let start =
        Start { broker: &scene.broker, directory: &directory, session_id: "worker", delivery: "channel", env: Vec::new() };
    let mut worker = Session::spawn(start.command());
    worker.initialize();
    eventually("the worker is there", || asker.peers().pop());
    // Sending the later ones gives the first enough time to arrive, if it could.
    let sent: Vec<Value> = (0..20).map(|_| asker.send("worker", "too early")["messageId"].clone()).collect();
    assert_eq!(worker.pushes_so_far(), [] as [Value; 0]);
    worker.initialized();
    for id in sent {
        assert_eq!(worker.pushed()["meta"]["message_id"], id);
    }
}

#[test]
fn channel_pushes_what_it_leased_before_a_hold() {
    let broker = Broker::start();
    let (http, asker) = (broker.http(), Peer::register(&broker.http(), "asker", json!({})));
    let worker = Peer::register(&http, "worker", json!({"channel": true}));
    let events = worker.follow(&http);
    let sent = asker.over(&http).post("/v1/send", &json!({"to": worker.id, "text": "on its way"})).json();
    drop(events);
    let worker = Peer::register(&worker.over(&http), "worker", json!({"channel": true, "inbound": "hold"}));
    let (event, message) = worker.follow(&http).next().unwrap();
    assert_eq!((event.as_str(), &message["id"]), ("message", &sent["messageId"]));
}
