//! Killed processes, many senders and retries: no message is lost, silently repeated or out of order.

use super::{Scene, assert_nothing_more, ids};
use crate::support::{Broker, Session, events::Peer, eventually, http::Http, mcp::Start};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    process::Stdio,
    thread,
};

#[test]
fn reply_after_resume_confirms_the_earlier_push() {
    let scene = Scene::new();
    let (mut asker, mut worker) = (scene.pulling("asker"), scene.pushed("worker"));
    let id = asker.send("worker", "did the schema change?")["messageId"].clone();
    assert_eq!(worker.pushed()["meta"]["message_id"], id);
    worker.kill();
    let mut worker = Session::start(&scene.broker, &scene.directory("worker"), "worker");
    let answer = worker.tool("send_message", json!({"targetPeerId": "asker", "message": "no", "replyTo": id}));
    scene.assert_state(&id, "delivered", "reply");
    let messages = asker.check();
    assert_eq!((&messages[0]["id"], &messages[0]["replyTo"]), (&answer["messageId"], &id));
}

#[test]
fn client_gone_before_its_answer_keeps_counts_right() {
    let broker = Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    let http = broker.http();
    let peer = Peer::register(&http, "hasty", json!({"sessionId": "hasty"}));
    let mine = peer.over(&http);
    // The client closes the connection while the broker commits.
    let hastily = |as_peer: &Http, path: &str, body: &Value| {
        let headers = [("Content-Type", "application/json")];
        drop(as_peer.converse().say(&as_peer.written("POST", path, &headers, &body.to_string())));
    };
    for round in 0..40 {
        let message = json!({"to": peer.id, "text": "hello", "key": format!("send-{round}")});
        hastily(&http, "/v1/send", &message);
        http.post("/v1/send", &message); // a retry, in case the first was not read at all
        let taken =
            mine.post("/v1/take", &json!({"lease": format!("take-{round}"), "route": "check_messages", "waitSeconds": 60}));
        let outcomes: Vec<_> =
            taken.json()["messages"].as_array().unwrap().iter().map(|m| json!({"id": m["id"], "outcome": "delivered"})).collect();
        assert!(!outcomes.is_empty(), "round {round}: a message that is stored and that nobody knows of");
        let acknowledgement = json!({"route": "check_messages", "messages": outcomes});
        hastily(&mine, "/v1/acknowledge", &acknowledgement);
        mine.post("/v1/acknowledge", &acknowledgement);
    }
    assert_eq!(broker.count("SELECT count(*) FROM message WHERE waiting = 1"), 0);
    assert_eq!(http.get("/v1/status").json()["database"]["waiting"], 0);
}

#[test]
fn repeated_take_ends_the_one_before() {
    let broker = Broker::start();
    let http = broker.http();
    let peer = Peer::register(&http, "reader", json!({}));
    let mine = peer.over(&http);
    let take = |wait: u32| json!({"lease": "one", "route": "check_messages", "waitSeconds": wait});
    let mut first = mine.converse();
    first.say(&mine.written("POST", "/v1/take", &[("Content-Type", "application/json")], &take(3_600).to_string())).unwrap();
    eventually("the first one waits", || {
        let reason = broker.peers()[0]["deliveryReason"].as_str().unwrap().to_owned();
        reason.contains("a call of its tools waits").then_some(())
    });
    // Whoever asks again under the same lease will not read the first answer: it must not carry mail.
    assert_eq!(mine.post("/v1/take", &take(0)).json()["messages"], json!([]));
    assert_eq!(first.answer().unwrap().json()["messages"], json!([]));
}

#[test]
fn half_written_result_is_repeated_with_a_mark() {
    let scene = Scene::new();
    let mut asker = scene.pulling("asker");
    let directory = scene.directory("worker");
    let start = Start { broker: &scene.broker, directory: &directory, session_id: "worker", delivery: "pull", env: Vec::new() };
    // The client reads nothing, and the answer does not fit into the pipe, so the server blocks in the middle of it.
    let (mut reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4_096).unwrap();
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    let mut next_byte = || {
        let mut byte = [0];
        eventually("the worker writes", || reader.read_exact(&mut byte).ok());
        byte[0]
    };
    let mut worker = start.command().stdin(Stdio::piped()).stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = worker.stdin.take().unwrap();
    let client =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "claude-code", "version": "1"}});
    writeln!(stdin, "{}", json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client})).unwrap();
    while next_byte() != b'\n' {}
    writeln!(stdin, "{}", json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).unwrap();
    eventually("the worker is there", || asker.peers().pop());
    let sent: Vec<Value> = ["a", "b"].map(|letter| asker.send("worker", &letter.repeat(7_000))["messageId"].clone()).into();
    let call = json!({"name": "check_messages", "arguments": {}});
    writeln!(stdin, "{}", json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call})).unwrap();
    next_byte(); // the server has taken the messages and begun to write them
    worker.kill().unwrap();
    worker.wait().unwrap();

    let mut worker = scene.resumed("worker");
    let messages = worker.check();
    assert_eq!(ids(&messages), sent);
    assert!(messages.iter().all(|message| message["repeat"] == true), "{messages:?}");
    for id in &sent {
        assert_eq!(scene.broker.message_once("delivered", id)["route"], "check_messages");
    }
    assert_nothing_more(&mut worker);
}

#[test]
fn messages_of_each_sender_arrive_in_order() {
    const EACH: usize = 15;
    let scene = Scene::new();
    let (mut worker, mut reader) = (scene.pushed("worker"), scene.pulling("reader"));
    let mut senders = ["one", "two", "three"].map(|name| scene.pulling(name));
    thread::scope(|scope| {
        for (number, sender) in senders.iter_mut().enumerate() {
            scope.spawn(move || {
                for at in 0..EACH {
                    for to in ["worker", "reader"] {
                        sender.send(to, &format!("{number} {at:02}"));
                    }
                }
            });
        }
        let pushed: Vec<String> = (0..3 * EACH).map(|_| worker.pushed()["content"].as_str().unwrap().to_owned()).collect();
        let mut read: Vec<String> = Vec::new();
        while read.len() < 3 * EACH {
            read.extend(reader.check().iter().map(|message| message["text"].as_str().unwrap().to_owned()));
        }
        for (by, texts) in [("channel", pushed), ("check_messages", read)] {
            for number in 0..3 {
                let of_one: Vec<_> = texts.iter().filter(|text| text.starts_with(&number.to_string())).cloned().collect();
                let sent: Vec<_> = (0..EACH).map(|at| format!("{number} {at:02}")).collect();
                assert_eq!(of_one, sent, "{by}");
            }
        }
    });
}

#[test]
fn idempotency_key_makes_attempts_one_message() {
    let mut scene = Scene::new();
    let (mut worker, _other) = (scene.pulling("worker"), scene.pulling("other"));
    let body = json!({"to": "worker", "text": "once", "key": "attempt-1"});
    let first = thread::scope(|scope| {
        let attempts: Vec<_> = (0..8).map(|_| scope.spawn(|| scene.broker.http().post("/v1/send", &body).json())).collect();
        let receipts: Vec<Value> = attempts.into_iter().map(|attempt| attempt.join().unwrap()).collect();
        assert!(receipts.iter().all(|receipt| receipt["messageId"] == receipts[0]["messageId"]), "{receipts:?}");
        receipts[0]["messageId"].clone()
    });
    scene.broker.restart();
    assert_eq!(scene.broker.http().post("/v1/send", &body).json()["messageId"], first);
    assert_eq!(ids(&worker.check()), std::slice::from_ref(&first));
    scene.broker.message_once("delivered", &first);
    let again = scene.broker.http().post("/v1/send", &body).json();
    assert_eq!((&again["messageId"], &again["state"]), (&first, &json!("delivered")), "the receipt tells the present state");

    for other in
        [json!({"to": "worker", "text": "twice", "key": "attempt-1"}), json!({"to": "other", "text": "once", "key": "attempt-1"})]
    {
        let refused = scene.broker.http().post("/v1/send", &other);
        assert_eq!((refused.status, &*refused.code()), (409, "idempotency_conflict"), "{other}");
    }
    let fresh = scene.broker.http().post("/v1/send", &json!({"to": "worker", "text": "once", "key": "attempt-2"})).json();
    assert_eq!(ids(&worker.check()), [fresh["messageId"].clone()]);
}

#[test]
fn send_during_a_restart_is_accepted_once() {
    let mut scene = Scene::new();
    let (mut asker, mut worker) = (scene.pulling("asker"), scene.pulling("worker"));
    scene.broker.kill();
    let call = json!({"name": "send_message", "arguments": {"targetPeerId": "worker", "message": "hold the line"}});
    let sending = asker.ask("tools/call", call);
    scene.broker.launch();
    let sent = asker.answer(sending)["result"]["structuredContent"].clone();
    assert_eq!(sent["success"], true, "{sent}");
    assert_eq!(ids(&worker.check()), [sent["messageId"].clone()]);
    assert_nothing_more(&mut worker);
}

#[test]
fn push_to_a_dying_session_is_repeated() {
    let scene = Scene::new();
    let (mut asker, mut worker) = (scene.pulling("asker"), scene.pushed("worker"));
    super::prove_channel(&scene, &mut asker, &mut worker, "worker");
    let id = asker.send("worker", "the last words before the crash")["messageId"].clone();
    worker.pushed();
    scene.broker.message_once("offered", &id);
    worker.kill(); // the push may be unread in Claude Code's queue
    let mut worker = scene.resumed("worker");
    let messages = worker.check();
    assert_eq!((ids(&messages), &messages[0]["repeat"]), (vec![id], &json!(true)));
}
