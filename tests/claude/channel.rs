//! A session with the channel flag where channels are unavailable: Claude Code silently drops every push.

use crate::{Test, session::Claude, world::World};
use serde_json::{Value, json};
use std::path::Path;

pub const TESTS: &[(&str, Test)] = &[("channel::dropped_push_is_not_reported_as_delivered", dropped)];

fn dropped(claude: &Path) {
    let world = World::new(claude);
    let ada = Claude::start(&world, "ada");
    let flags = ["--dangerously-load-development-channels", "server:claude-peers"];
    let bob = Claude::in_env(&world, "bob", "bob", &[("CLAUDE_PEERS_DELIVERY", "channel")], &flags);
    assert_eq!(bob.peer().unwrap()["delivery"], "channel");
    assert!(bob.screen().contains("Channels are not currently available"), "{}", bob.screen());
    let said = ada.send("bob", "Is the parser done?");
    let message = world.broker().message_once("offered", &said["messageId"]);
    assert_eq!(message["route"], "channel", "{message}");
    assert!(world.model.requests("bob").is_empty(), "Claude Code dropped the push");
    // The next tool result carries it again, and only that proves delivery.
    let (request, list) = bob.call("list_peers", json!({"scope": "machine"}));
    let list: Value = serde_json::from_str(&list).unwrap();
    let mail = &list["incomingMessages"];
    assert_eq!(
        (&mail[0]["text"], &mail[0]["repeat"], &mail[1]),
        (&json!("Is the parser done?"), &json!(true), &Value::Null),
        "{list}"
    );
    assert_eq!(request.text().matches("Is the parser done?").count(), 1, "{}", request.news());
    let message = world.broker().message_once("delivered", &said["messageId"]);
    assert_eq!(message["route"], "tool_result", "{message}");
}
