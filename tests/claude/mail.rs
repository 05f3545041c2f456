//! Messages between two sessions that have neither hooks nor a channel.

use crate::{Test, session::Claude, world::World};
use serde_json::json;
use std::path::Path;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("mail::without_hooks_and_channel_a_message_comes_with_the_next_call", next_call),
    ("mail::a_message_in_the_middle_of_a_turn_comes_with_the_next_result", middle),
    ("mail::of_three_sessions_in_one_directory_the_right_one_gets_it", three),
];

fn next_call(claude: &Path) {
    let world = World::new(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    let said = ada.send("bob", "Is the parser done?");
    assert!(said.contains("when it next uses one of its claude-peers tools"), "{said}");
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
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
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

fn three(claude: &Path) {
    let world = World::new(claude);
    let sessions = ["ada", "bob", "eve"].map(|name| Claude::beside(&world, name, "work", &[]));
    let ids = sessions.each_ref().map(|session| session.peer().unwrap()["id"].as_str().unwrap().to_owned());
    let [ada, bob, eve] = &sessions;
    ada.send(&ids[1], "This is for bob.");
    ada.send(&ids[2], "This is for eve.");
    for (session, (own, other)) in
        [(eve, ("This is for eve.", "This is for bob.")), (bob, ("This is for bob.", "This is for eve."))]
    {
        let (request, list) = session.call("list_peers", json!({"scope": "directory"}));
        assert!(list.contains(own) && !request.text().contains(other), "{list}");
    }
}
