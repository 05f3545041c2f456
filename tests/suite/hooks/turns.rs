//! What comes while a session works: beside results and prompts, in order.

use super::{Scene, WAITING};
use crate::support::eventually;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[test]
fn what_comes_in_a_turn_stands_beside_the_next_result_and_nothing_is_said_without_mail() {
    let scene = Scene::new();
    let hook = scene.waiter("SessionStart");
    scene.claude.hook("UserPromptSubmit", "s-1", json!({"prompt": "work"})).left_silently();
    scene.claude.hook("PostToolUse", "s-1", json!({"tool_name": "Bash"})).left_silently();
    let sent = [scene.send("first"), scene.send("second")];
    let subagent = json!({"tool_name": "Bash", "agent_id": "a1", "agent_type": "Explore"});
    scene.claude.hook("PostToolUse", "s-1", subagent).left_silently();
    let long = "x".repeat(1_000_000);
    scene.claude.hook("PostToolUse", "s-1", json!({"tool_response": &long, "agent_id": "a1"})).left_silently();
    // One that says more than can be parsed in time is as good as another.
    let result = json!({"tool_name": "Read", "tool_response": {"file": long}});
    let said = scene.claude.hook("PostToolUse", "s-1", result).put_beside("PostToolUse");
    let [first, second] = ["\nfirst\n", "\nsecond\n"].map(|text| said.find(text).unwrap_or_else(|| panic!("{text}: {said}")));
    assert!(first < second);
    sent.iter().for_each(|sent| scene.assert_delivered_by_hook(&sent["messageId"]));
    scene.claude.hook("PostToolUse", "s-1", json!({})).left_silently();
    assert!(hook.runs());
    // The turn ends: the next one waits, and nothing of it all comes again.
    let next = scene.waiter("Stop");
    hook.left_silently();
    scene.send("third");
    let said = next.woke();
    assert!(said.contains("\nthird\n") && !said.contains("first"), "{said}");
}

#[test]
fn a_tools_result_leaves_mail_to_the_hook_behind_it_as_a_subagent_may_have_called_the_tool() {
    let mut scene = Scene::new();
    let waiter = scene.waiter("SessionStart");
    scene.send("wake up");
    waiter.woke();
    scene.claude.hook("UserPromptSubmit", "s-1", json!({})).left_silently();
    let sent = scene.send("for the main conversation");
    for _ in 0..2 {
        let result = scene.claude.session.tool("list_peers", json!({"scope": "machine"}));
        assert_eq!((result.get("incomingMessages"), &result["self"]["waiting"]), (None, &json!(1)), "{result}");
        scene.claude.hook("PostToolUse", "s-1", json!({"agent_id": "a1"})).left_silently();
    }
    scene.claude.session.tool("list_peers", json!({"scope": "machine"}));
    let said = scene.claude.hook("PostToolUse", "s-1", json!({})).put_beside("PostToolUse");
    assert!(said.contains("for the main conversation"), "{said}");
    scene.assert_delivered_by_hook(&sent["messageId"]);
}

#[test]
fn a_session_whose_hooks_were_switched_off_gets_its_mail_with_the_results_of_tools_again() {
    let mut scene = Scene::new();
    scene.claude.hook("UserPromptSubmit", "s-1", json!({})).left_silently();
    let sent = scene.send("hello");
    // No hook follows these results.
    let result = eventually("a result carries the message", || {
        let result = scene.claude.session.tool("list_peers", json!({"scope": "machine"}));
        result.get("incomingMessages").is_some().then_some(result)
    });
    assert_eq!(result["incomingMessages"][0]["text"], "hello");
    assert!(result["notice"].as_str().unwrap().contains("not from the user"), "{result}");
    assert_eq!(scene.broker.message_once("delivered", &sent["messageId"])["route"], "tool_result");
    assert_eq!(scene.peer()["deliveryReason"], "pull: no hooks, no channel");
}

#[test]
fn a_call_that_waits_for_a_message_gets_it_and_the_waiter_does_not() {
    let mut scene = Scene::new();
    let hook = scene.waiter("SessionStart");
    let call = json!({"name": "check_messages", "arguments": {"waitSeconds": 60}});
    let call = scene.claude.session.ask("tools/call", call);
    scene.once_reason_is("pull: a call of its tools waits for messages");
    let sent = scene.send("for the call");
    let answer = scene.claude.session.answer(call);
    assert_eq!(answer["result"]["structuredContent"]["messages"][0]["text"], "for the call", "{answer}");
    assert_eq!(scene.broker.message_once("delivered", &sent["messageId"])["route"], "check_messages");
    assert!(hook.runs());
    scene.once_reason_is(WAITING);
    scene.send("for the waiter");
    assert!(hook.woke().contains("for the waiter"));
}

#[test]
fn a_turn_that_was_interrupted_keeps_mail_from_its_session_only_for_a_moment() {
    let scene = Scene::new();
    let hook = scene.waiter("SessionStart");
    scene.claude.hook("UserPromptSubmit", "s-1", json!({"prompt": "work"})).left_silently();
    let (begun, sent) = (Instant::now(), scene.send("are you there?"));
    // The client would keep what is said now until the turn's next result or end: it is not said yet.
    let said = hook.woke();
    assert!(said.contains("claude-peers") && !said.contains("are you there?"), "{said}");
    assert!(begun.elapsed() > Duration::from_secs(2), "the results of tools go first: {:?}", begun.elapsed());
    assert_eq!(scene.broker.message(&sent["messageId"])["state"], "queued");
    let said = scene.claude.hook("UserPromptSubmit", "s-1", json!({"prompt": said})).put_beside("UserPromptSubmit");
    assert!(said.contains("are you there?"), "{said}");
    scene.assert_delivered_by_hook(&sent["messageId"]);
}

#[test]
fn a_turn_begins_with_a_waiter_that_leaves_mail_to_the_other_hooks_of_the_turn() {
    let scene = Scene::new();
    let hook = scene.waiter("SessionStart");
    let prompt = json!({"hook_event_name": "UserPromptSubmit", "prompt": "work"});
    scene.claude.hook("UserPromptSubmit", "s-1", prompt.clone()).left_silently();
    let next = scene.claude.hook("TurnStart", "s-1", prompt);
    hook.left_silently();
    scene.once_reason_is(WAITING);
    scene.send("hello");
    let said = scene.claude.hook("PostToolUse", "s-1", json!({})).put_beside("PostToolUse");
    assert!(said.contains("\nhello\n"), "{said}");
    // The turn is interrupted: nothing ends it, and no other hook begins to wait.
    scene.send("are you there?");
    next.woke();
    scene.claude.hook("UserPromptSubmit", "s-1", json!({"prompt": "woken"})).put_beside("UserPromptSubmit");
}

#[test]
fn a_waiter_of_a_turns_beginning_that_comes_after_its_end_takes_the_session_for_idle() {
    let scene = Scene::new();
    scene.claude.hook("UserPromptSubmit", "s-1", json!({"prompt": "work"})).left_silently();
    let hook = scene.waiter("Stop");
    let late = scene.claude.hook("TurnStart", "s-1", json!({"hook_event_name": "UserPromptSubmit", "prompt": "work"}));
    hook.left_silently();
    scene.once_reason_is(WAITING);
    let sent = scene.send("at once");
    assert!(late.woke().contains("\nat once\n"), "it hands over, as in no turn");
    scene.assert_delivered_by_hook(&sent["messageId"]);
}

#[test]
fn a_session_that_is_woken_in_its_turn_is_shown_everything_in_order() {
    let scene = Scene::new();
    let hook = scene.waiter("SessionStart");
    scene.claude.hook("PostToolUse", "s-1", json!({"tool_name": "Bash"})).left_silently();
    scene.send("first");
    hook.woke();
    scene.send("second");
    let said = scene.claude.hook("PostToolUse", "s-1", json!({"tool_name": "Bash"})).put_beside("PostToolUse");
    assert!(said.find("\nfirst\n").unwrap() < said.find("\nsecond\n").unwrap(), "{said}");
    // With the turn's end the client makes a prompt of the wake-up, which is before anything that the next waiter says.
    let hook = scene.waiter("Stop");
    scene.send("third");
    let said = scene.claude.hook("UserPromptSubmit", "s-1", json!({"prompt": "woken"})).put_beside("UserPromptSubmit");
    assert!(said.contains("\nthird\n") && !said.contains("second"), "{said}");
    scene.waiter("Stop");
    hook.left_silently();
}

#[test]
fn a_hundred_messages_are_handed_over_in_order_in_a_few_turns() {
    let mut scene = Scene::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    let sent: Vec<_> = (0..100).map(|number| scene.send(&format!("number {number:03}"))["messageId"].clone()).collect();
    let mut said = String::new();
    let mut turns = 0;
    while said.matches("\nnumber ").count() < 100 {
        turns += 1;
        assert!(turns <= 4, "{said}");
        let words = scene.claude.hook("Stop", "s-1", json!({})).woke();
        assert!(words.chars().count() < 10_000);
        said += &words;
    }
    let places: Vec<_> = (0..100).map(|number| said.find(&format!("\nnumber {number:03}\n")).unwrap()).collect();
    assert!(places.is_sorted() && !said.contains("repeat"), "{said}");
    sent.iter().for_each(|id| scene.assert_delivered_by_hook(id));
    assert_eq!(scene.claude.session.check(), [] as [Value; 0]);
}

#[test]
fn a_long_text_is_announced_and_read_with_check_messages() {
    let mut scene = Scene::new();
    let hook = scene.waiter("Stop");
    let text = format!("{}the end", "long ".repeat(3_000));
    let sent = scene.send(&text);
    let said = hook.woke();
    assert!(said.contains("check_messages") && !said.contains("the end") && said.chars().count() < 2_000, "{said}");
    assert_eq!(scene.broker.message_once("offered", &sent["messageId"])["route"], "hook");
    scene.claude.hook("PostToolUse", "s-1", json!({})).left_silently();
    let messages = scene.claude.session.check();
    assert_eq!((&messages[0]["text"], messages[0].get("repeat")), (&json!(text), None));
    assert_eq!(scene.broker.message_once("delivered", &sent["messageId"])["route"], "check_messages");
}
