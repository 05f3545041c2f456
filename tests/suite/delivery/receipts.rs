//! Receipts and the history, and how long they are kept.

use super::{Scene, assert_nothing_more, ids};
use crate::support::eventually;
use chrono::DateTime;
use serde_json::{Value, json};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn receipt_has_the_time_of_each_step() {
    let scene = Scene::new();
    let (mut asker, mut worker) = (scene.pulling("asker"), scene.pulling("worker"));
    let (asker_id, worker_id) = (asker.id(), worker.id());
    let time = |receipt: &Value, field: &str| DateTime::parse_from_rfc3339(receipt[field].as_str().unwrap()).unwrap();
    let has = |receipt: &Value, fields: [bool; 4]| {
        assert_eq!(
            ["route", "offeredAt", "deliveredAt", "expiredAt"].map(|field| receipt.get(field).is_some()),
            fields,
            "{receipt}"
        );
    };
    let id = asker.send("worker", "by tool")["messageId"].clone();
    let queued = scene.broker.message(&id);
    has(&queued, [false; 4]);
    assert_eq!((&queued["state"], &queued["text"]), (&json!("queued"), &json!("by tool")));
    assert_eq!((&queued["fromName"], &queued["toName"]), (&json!("asker"), &json!("worker")));
    assert_eq!((&queued["from"], &queued["to"]), (&json!(asker_id), &json!(worker_id)));
    assert_eq!(time(&queued, "expiresAt"), time(&queued, "sentAt") + 7 * DAY, "seven days unless set otherwise");
    worker.check();
    let delivered = scene.broker.message_once("delivered", &id);
    has(&delivered, [true, false, true, false]);
    assert!(time(&delivered, "deliveredAt") >= time(&delivered, "sentAt"));

    let mut worker = scene.pushed("listener");
    let id = asker.send("listener", "by channel")["messageId"].clone();
    worker.pushed();
    let offered = scene.broker.message_once("offered", &id);
    has(&offered, [true, true, false, false]);
    assert!(time(&offered, "offeredAt") >= time(&offered, "sentAt"));
    worker.tool("send_message", json!({"targetPeerId": "asker", "message": "heard", "replyTo": id}));
    let delivered = scene.broker.message(&id);
    has(&delivered, [true, true, true, false]);
    assert_eq!(delivered["offeredAt"], offered["offeredAt"]);
    assert!(time(&delivered, "deliveredAt") >= time(&delivered, "offeredAt"));
}

#[test]
fn sender_is_told_when_mail_expires() {
    let mut scene = Scene::with(&[("CLAUDE_PEERS_EXPIRY", "2d")]);
    let (mut asker, worker) = (scene.pulling("asker"), scene.pulling("worker"));
    let id = asker.send("worker", "are you there?")["messageId"].clone();
    let (_, from_user) = scene.broker.cli_json(&["send", "worker", "from the command line"]);
    worker.close();
    scene.broker.restart_later(DAY);
    let later = asker.send("worker", "and now?")["messageId"].clone();
    for message in [&id, &from_user["messageId"], &later] {
        assert_eq!(scene.broker.message(message)["state"], "queued", "two days have not passed");
    }
    scene.broker.restart_later(DAY);
    for message in [&id, &from_user["messageId"]] {
        let expired = scene.broker.message_once("expired", message);
        assert!(expired["expiredAt"].is_string() && expired.get("deliveredAt").is_none(), "{expired}");
    }
    let notice = eventually("the sender is told", || asker.check().pop());
    assert_eq!((&notice["from"]["id"], &notice["replyTo"]), (&json!("broker"), &id));
    let words = notice["text"].as_str().unwrap();
    for part in [id.as_str().unwrap(), "to worker", "was not delivered in time and has expired"] {
        assert!(words.contains(part), "{part:?} is not in {words:?}");
    }
    let mut worker = scene.resumed("worker");
    assert_eq!(ids(&worker.check()), [later], "what has expired is not shown any more");
    assert_nothing_more(&mut asker);
}

#[test]
fn delivered_messages_stay_in_the_history() {
    let mut scene = Scene::with(&[("CLAUDE_PEERS_HISTORY", "10d")]);
    let (mut asker, mut worker) = (scene.pulling("asker"), scene.pulling("worker"));
    let id = asker.send("worker", "read and done")["messageId"].clone();
    worker.check();
    scene.broker.message_once("delivered", &id);
    let waiting = asker.send("worker", "not read")["messageId"].clone();
    scene.broker.restart_later(6 * DAY);
    assert_eq!(scene.broker.message(&id)["text"], "read and done");
    scene.broker.restart_later(5 * DAY);
    let path = format!("/v1/messages/{}", id.as_str().unwrap());
    let answer = eventually("it is removed", || Some(scene.broker.http().get(&path)).filter(|answer| answer.status != 200));
    assert_eq!(answer.code(), "message_not_found");
    assert_eq!(scene.broker.message(&waiting)["text"], "not read", "what did not arrive is kept, to say that it expired");
}
