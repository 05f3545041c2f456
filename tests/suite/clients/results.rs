//! Results in the form that a client shows its model.

use super::{NAMES, one, open};
use crate::support::eventually;
use serde_json::{Value, json};

/// The parts of a result that this client shows its model, each as text.
fn shown(client: &str, result: &Value) -> Vec<String> {
    let texts = || result["content"].as_array().unwrap().iter().map(|block| block["text"].as_str().unwrap().to_owned());
    let structured = || result.get("structuredContent").map(Value::to_string);
    match client {
        "gemini-cli-mcp-client" | "opencode" | "goose-cli" | "pi" => texts().collect(),
        "qwen-cli-mcp-client-claude-peers" | "copilot-cli" | "@cline/core" => texts().chain(structured()).collect(),
        _ => structured().into_iter().collect(),
    }
}

#[test]
fn model_sees_a_message_once() {
    for client in NAMES {
        let (broker, place, mut session) = one(client);
        let mut asker = open(&broker, place.path(), "some-new-client");
        let to = eventually("it is listed", || {
            let peers = asker.peers();
            peers.first().map(|peer| peer["id"].as_str().unwrap().to_owned())
        });
        for (tool, arguments) in [("list_peers", json!({"scope": "machine"})), ("check_messages", json!({}))] {
            let text = format!("seen through {tool}");
            let sent = asker.send(&to, &text)["messageId"].as_str().unwrap().to_owned();
            let result = eventually("a result has the message", || {
                Some(session.call(tool, arguments.clone())).filter(|result| result.to_string().contains(&text))
            });
            let shown = shown(client, &result).join("\n");
            assert_eq!(shown.matches(&text).count(), 1, "{client}, {tool}: {shown}");
            assert_eq!(shown.matches(&sent).count(), 1, "{client}, {tool}: {shown}");
            assert_eq!(shown.matches("not from the user").count(), 1, "{client}, {tool}: {shown}");
            broker.message_once("delivered", &json!(sent));
        }
    }
}

#[test]
fn unknown_client_gets_both_forms() {
    for client in ["claude-code", "mcp", "some-new-client"] {
        let (_broker, _place, mut session) = one(client);
        let result = session.call("list_peers", json!({"scope": "machine"}));
        assert!(result["content"][0]["text"].as_str().unwrap().starts_with("You are "), "{client}: {result}");
        assert!(result["structuredContent"]["self"].is_object(), "{client}: {result}");
    }
}

#[test]
fn waiting_call_reports_progress_until_its_answer() {
    let (broker, place, mut session) = one("@cline/core");
    let mut asker = open(&broker, place.path(), "some-new-client");
    session.call("set_summary", json!({"summary": "here"}));
    let to = asker.peers()[0]["id"].as_str().unwrap().to_owned();
    let arguments = json!({"waitSeconds": 60});
    let meta = json!({"progressToken": "token-7"});
    let call = session.ask("tools/call", json!({"name": "check_messages", "arguments": arguments, "_meta": meta}));
    let progress = session.next_line().unwrap();
    assert_eq!(progress["method"], "notifications/progress", "{progress}");
    assert_eq!(progress["params"]["progressToken"], "token-7", "{progress}");
    assert!(progress["params"]["progress"].as_u64().unwrap() > 0, "{progress}");

    asker.send(&to, "the end of the wait");
    let answer = session.next_line().unwrap();
    assert_eq!((&answer["id"], answer.to_string().contains("the end of the wait")), (&json!(call), true), "{answer}");
    // Another progress would be due by the time of this answer.
    let wait = session.ask("tools/call", json!({"name": "check_messages", "arguments": {"waitSeconds": 11}}));
    assert_eq!(session.next_line().unwrap()["id"], wait, "a call without a token reports nothing");
}
