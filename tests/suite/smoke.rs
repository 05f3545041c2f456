//! A message's whole path: tool call → broker → commit → push → receipt.

use crate::support::{Broker, Session, folder, git};
use serde_json::json;

#[test]
fn question_and_answer_are_delivered() {
    let (broker, place) = (Broker::start(), folder());
    let (a, b) = (place.path().join("frontend"), place.path().join("backend"));
    git::repository(&a);
    git::repository(&b);
    let mut asker = Session::start(&broker, &a, "session-a");
    let mut answerer = Session::start(&broker, &b, "session-b");
    let asker_id = asker.id();
    let answerer_id = answerer.id();
    assert_eq!(asker.peers()[0]["id"], *answerer_id);
    assert_eq!(asker.peers()[0]["name"], "backend");

    let sent = asker.send("backend", "did the schema change?");
    let push = answerer.pushed();
    assert_eq!(push["content"], "did the schema change?");
    assert_eq!(push["meta"]["from_id"], *asker_id);
    assert_eq!(push["meta"]["message_id"], sent["messageId"]);

    let reply = json!({"targetPeerId": asker_id, "message": "no", "replyTo": sent["messageId"]});
    answerer.tool("send_message", reply);
    assert_eq!(asker.pushed()["content"], "no");

    let (code, receipt) = broker.cli_json(&["message", sent["messageId"].as_str().unwrap()]);
    assert_eq!((code, receipt["state"].as_str(), receipt["route"].as_str()), (0, Some("delivered"), Some("reply")));
    assert!(answerer.check().is_empty(), "the channel has proved itself: nothing is repeated");
}
