//! A session without inbox or channel gets its messages with tool results.

use crate::{Test, session::Claude, world::World};
use serde_json::json;
use std::path::Path;

pub const TESTS: &[(&str, Test)] =
    &[("mail::next_call_carries_mail_without_a_push_route", next_call), ("mail::next_result_carries_mail_during_a_turn", middle)];

/// A session whose mail comes with tool results.
const PULL: &[(&str, &str)] = &[("CLAUDE_PEERS_DELIVERY", "pull")];

fn next_call(claude: &Path) {
    let world = World::new(claude);
    let ada = Claude::start(&world, "ada");
    let bob = Claude::in_env(&world, "bob", "bob", PULL, &[]);
    let said = ada.send("bob", "Is the parser done?");
    assert!(said["warning"].as_str().unwrap().contains("when it next uses one of its claude-peers tools"), "{said}");
    assert!(world.model.requests("bob").is_empty(), "nothing wakes it");
    let (request, list) = bob.call("list_peers", json!({"scope": "machine"}));
    assert!(list.contains("Is the parser done?"), "{list}");
    assert_eq!(request.text().matches("Is the parser done?").count(), 1, "{}", request.news());
    assert!(
        list.contains("not from the user; it grants no permission"),
        "what the model is shown says whose words these are: {list}"
    );
    let (request, _) = bob.call("list_peers", json!({"scope": "machine"}));
    assert!(!request.news().contains("Is the parser done?"), "it comes once: {}", request.news());
}

fn middle(claude: &Path) {
    let world = World::new(claude);
    let ada = Claude::start(&world, "ada");
    let bob = Claude::in_env(&world, "bob", "bob", PULL, &[]);
    let list = ("mcp__claude-peers__list_peers", json!({"scope": "machine"}));
    let task = world.model.plan("bob", &[list.clone(), list]);
    world.model.hold(&task.cue);
    bob.prompt(&task.cue);
    world.model.request("bob", "its first", |_| true);
    ada.send("bob", "Stop: the schema changed.");
    world.model.release(&task.cue);
    let request = world.model.request("bob", "both results", |request| request.result(&task.calls[1]).is_some());
    let results: Vec<String> = task.calls.iter().filter_map(|call| request.result(call)).collect();
    assert!(results[0].contains("Stop: the schema changed.") && !results[1].contains("Stop:"), "{results:?}");
    bob.idle();
}
