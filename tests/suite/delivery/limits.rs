//! Each limit gives the sender a clear error.

use super::{Scene, ids};
use serde_json::{Value, json};

#[test]
fn each_limit_refuses_with_its_reason() {
    let unlimited = ("CLAUDE_PEERS_RATE_LIMIT", "0");
    // The settings, the text, how many messages pass, and the cause and the remedy in the refusal.
    for (settings, text, passes, cause, remedy) in [
        (
            vec![("CLAUDE_PEERS_RATE_LIMIT", "1"), ("CLAUDE_PEERS_RATE_BURST", "2")],
            "hello",
            2,
            "more than 1 messages a minute (at most 2 at once)",
            "and send it again",
        ),
        (vec![], "thanks", 3, "3 times within a minute", "do not send it again"),
        (vec![("CLAUDE_PEERS_REPEAT_LIMIT", "1")], "thanks", 1, "1 times within a minute", "do not send it again"),
        (
            vec![unlimited, ("CLAUDE_PEERS_WAITING_LIMIT", "3")],
            "more",
            3,
            "3 messages wait for worker already; at most 3 are kept",
            "wait until it has read some",
        ),
        (
            vec![unlimited, ("CLAUDE_PEERS_TEXT_LIMIT", "10")],
            "elf Zeichen",
            0,
            "has 11 bytes; at most 10 are taken",
            "send a shorter text",
        ),
        (vec![unlimited], "no limit", 50, "", ""),
    ] {
        let scene = Scene::with(&settings);
        let (mut asker, mut worker) = (scene.pulling("asker"), scene.pulling("worker"));
        for _ in 0..passes {
            asker.send("worker", text);
        }
        if !cause.is_empty() {
            let said = asker.tool_error("send_message", json!({"targetPeerId": "worker", "message": text}));
            assert!(said.contains(cause) && said.contains(remedy), "{settings:?}: {said}");
        }
        let mut arrived = Vec::new();
        while let messages @ [_, ..] = &worker.check()[..] {
            arrived.extend(ids(messages));
        }
        assert_eq!(arrived.len(), passes, "{settings:?}: what was accepted arrives, what was refused does not");
    }
}

#[test]
fn limits_apply_per_sender_text_and_mailbox() {
    let scene = Scene::with(&[("CLAUDE_PEERS_WAITING_LIMIT", "2"), ("CLAUDE_PEERS_REPEAT_LIMIT", "1")]);
    let (mut asker, mut other, mut worker, _idle) =
        (scene.pulling("asker"), scene.pulling("other"), scene.pulling("worker"), scene.pulling("idle"));
    let call = |to: &str, text: &str| json!({"targetPeerId": to, "message": text});
    asker.send("worker", "thanks");
    assert!(asker.tool_error("send_message", call("worker", "thanks")).contains("within a minute"));
    other.send("worker", "thanks");
    asker.send("idle", "thanks");
    assert!(other.tool_error("send_message", call("worker", "more")).contains("messages wait for worker already"));
    asker.send("idle", "another text");
    for message in worker.check() {
        scene.broker.message_once("delivered", &message["id"]);
    }
    let sent = other.send("worker", "after it has read")["messageId"].clone();
    assert_eq!(ids(&worker.check()), [sent]);
}

#[test]
fn http_refusal_says_when_to_retry() {
    let scene = Scene::with(&[("CLAUDE_PEERS_RATE_LIMIT", "1"), ("CLAUDE_PEERS_RATE_BURST", "1")]);
    let _worker = scene.pulling("worker");
    let send = |text: &str| scene.broker.http().post("/v1/send", &json!({"to": "worker", "text": text}));
    assert_eq!(send("one").status, 200);
    let refused = send("two");
    assert_eq!((refused.status, &*refused.code()), (429, "rate_limited"));
    let body: Value = serde_json::from_str(&refused.body).unwrap();
    assert!((1..=60_000).contains(&body["error"]["retryAfterMs"].as_u64().unwrap()), "{body}");
    assert!((1..=60).contains(&refused.header("Retry-After").unwrap().parse::<u32>().unwrap()));
}
