//! Our hooks in a real session: a message reaches it at once, whatever it does.

use crate::{Test, session::Claude, support::eventually, world::World};
use serde_json::json;
use std::path::Path;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("hooks::an_idle_session_is_woken_by_a_message", woken),
    ("hooks::in_the_middle_of_a_turn_a_message_stands_beside_the_next_result", beside),
    ("hooks::a_killed_session_leaves_no_waiter_behind", killed),
    ("hooks::a_session_that_is_interrupted_after_it_was_woken_is_woken_again", interrupted),
    ("hooks::a_waiter_outlives_the_broker", restarted),
    ("hooks::a_subagent_is_not_given_the_sessions_mail", subagent),
    ("hooks::of_three_sessions_in_one_directory_each_is_woken_by_its_own_mail", three),
];

fn woken(claude: &Path) {
    let world = World::hooked(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    bob.reached();
    for text in ["Is the parser done?", "And the lexer?"] {
        ada.send("bob", text);
        bob.shown(text);
        bob.idle();
        bob.reached();
    }
    eventually("each session has one waiter", || (world.waiters() == 2).then_some(()));
}

fn beside(claude: &Path) {
    let world = World::hooked(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    let search = ("ToolSearch", json!({"query": "select:WebFetch"}));
    let task = world.model.plan("bob", &[search.clone(), search]);
    world.model.hold(&task.cue);
    bob.prompt(&task.cue);
    world.model.request("bob", "its first", |_| true);
    ada.send("bob", "Stop: the schema changed.");
    world.model.release(&task.cue);
    let request = world.model.request("bob", "the first result", |request| request.result(&task.calls[0]).is_some());
    assert!(request.news().contains("Stop: the schema changed."), "{}", request.news());
    let request = world.model.request("bob", "both results", |request| request.result(&task.calls[1]).is_some());
    bob.idle();
    assert_eq!(request.text().matches("Stop: the schema changed.").count(), 1, "{}", request.text());
    assert_eq!(world.model.requests("bob").len(), 3, "nothing else wakes it");
}

fn interrupted(claude: &Path) {
    let world = World::hooked(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    bob.reached();
    world.model.hold("Is the parser done?");
    ada.send("bob", "Is the parser done?");
    bob.shown("Is the parser done?");
    // No hook tells of this.
    bob.keys(&["Escape"]);
    bob.idle();
    bob.reached();
    world.model.release("Is the parser done?");
    ada.send("bob", "And the lexer?");
    let request = bob.shown("And the lexer?");
    assert_eq!(request.text().matches("Is the parser done?").count(), 1, "{}", request.text());
    bob.idle();
    bob.reached();
    eventually("each session has one waiter", || (world.waiters() == 2).then_some(()));
    assert_eq!(bob.times_shown("And the lexer?"), 1);
}

fn killed(claude: &Path) {
    let world = World::hooked(claude);
    for signal in ["HUP", "KILL"] {
        let ada = Claude::start(&world, "ada");
        eventually("it has a waiter", || (world.waiters() == 1).then_some(()));
        ada.kill(signal);
        world.deserted();
    }
}

fn restarted(claude: &Path) {
    let world = World::hooked(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    bob.reached();
    world.broker().restart();
    eventually("ada is connected again", || ada.peer());
    bob.reached();
    ada.send("bob", "After the restart.");
    bob.shown("After the restart.");
    eventually("each session has one waiter", || (world.waiters() == 2).then_some(()));
}

fn subagent(claude: &Path) {
    let world = World::hooked(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    bob.reached();
    let list = ("mcp__claude-peers__list_peers", json!({"scope": "machine"}));
    let search = ("ToolSearch", json!({"query": "select:WebFetch"}));
    let inner = world.model.plan("bob", &[list, search]);
    let agent =
        json!({"description": "look", "prompt": inner.cue, "subagent_type": "general-purpose", "run_in_background": false});
    let outer = world.model.plan("bob", &[("Agent", agent)]);
    world.model.hold(&inner.cue);
    bob.prompt(&outer.cue);
    world.model.request("bob", "the subagent's", |request| request.text().contains(&inner.cue));
    ada.send("bob", "Stop: the schema changed.");
    world.model.release(&inner.cue);
    let text = "Stop: the schema changed.";
    let last = world.model.request("bob", "the subagent's results", |request| request.result(&inner.calls[1]).is_some());
    assert!(!last.text().contains(text), "{}", last.text());
    let is_main = |request: &crate::model::Request| request.text().contains(&outer.cue);
    let request = world.model.request("bob", "the message", |request| request.text().contains(text));
    assert!(is_main(&request), "it was given to the subagent: {}", request.news());
    bob.idle();
    let told = |request: &&std::sync::Arc<crate::model::Request>| request.news().contains(text);
    assert_eq!(world.model.requests("bob").iter().filter(told).count(), 1);
}

fn three(claude: &Path) {
    let world = World::hooked(claude);
    let sessions = ["ada", "bob", "eve"].map(|name| Claude::beside(&world, name, "work", &[]));
    let texts = ["This is for the first.", "This is for the second.", "This is for the third."];
    let ids = sessions.each_ref().map(|session| session.reached()["id"].as_str().unwrap().to_owned());
    for (id, text) in ids.iter().zip(texts) {
        assert!(world.broker().cli(&["send", id, text]).output().unwrap().status.success());
    }
    for (session, own) in sessions.iter().zip(texts) {
        session.shown(own);
        session.idle();
        session.reached();
        assert_eq!(texts.map(|text| session.times_shown(text)), texts.map(|text| usize::from(text == own)));
    }
    eventually("each session has one waiter", || (world.waiters() == 3).then_some(()));
}
