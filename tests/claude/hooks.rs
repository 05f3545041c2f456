//! Our hooks in a real session: a message reaches it at once, whatever it does.

use crate::{
    Test,
    session::Claude,
    support::{Session, eventually},
    world::World,
};
use serde_json::{Value, json};
use std::path::Path;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("hooks::an_idle_session_is_woken_by_a_message", woken),
    ("hooks::in_the_middle_of_a_turn_a_message_stands_beside_the_next_result", beside),
    ("hooks::a_cleared_session_has_one_waiter_and_gets_its_mail", cleared),
    ("hooks::a_killed_session_leaves_no_waiter_behind", killed),
    ("hooks::a_script_ends_whether_mail_waits_or_not", script),
    ("hooks::a_waiter_outlives_the_broker", restarted),
    ("hooks::a_subagent_is_not_given_the_sessions_mail", subagent),
    ("hooks::a_hundred_messages_to_a_busy_session_are_seen_in_order_in_few_turns", busy),
];

/// How many waiters there are, of all sessions.
fn waiters(world: &World) -> usize {
    let waits = |process: &&String| process.contains("claude-peers hook") && !process.contains("sh -c");
    world.processes().iter().filter(waits).count()
}

fn woken(claude: &Path) {
    let world = World::hooked(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    bob.reached();
    for text in ["Is the parser done?", "And the lexer?"] {
        ada.send("bob", text);
        let request = world.model.request("bob", text, |request| request.news().contains(text));
        assert_eq!(request.text().matches(text).count(), 1, "{}", request.news());
        bob.idle();
        bob.reached();
    }
    eventually("each session has one waiter", || (waiters(&world) == 2).then_some(()));
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

fn cleared(claude: &Path) {
    let world = World::hooked(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    bob.call("list_peers", json!({"scope": "machine"}));
    bob.clear();
    eventually("each session has one waiter", || (waiters(&world) == 2).then_some(()));
    ada.send("bob", "Are you still there?");
    world.model.request("bob", "the message", |request| request.news().contains("Are you still there?"));
}

fn killed(claude: &Path) {
    let world = World::hooked(claude);
    for signal in ["HUP", "KILL"] {
        let ada = Claude::start(&world, "ada");
        eventually("it has a waiter", || (waiters(&world) == 1).then_some(()));
        ada.kill(signal);
        world.deserted();
    }
}

fn script(claude: &Path) {
    let world = World::hooked(claude);
    let ada = Claude::start(&world, "ada");
    let output = world.print("job", "Go on.", &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(world.model.requests("job").len(), 1, "no hook makes it go on");
    let lines = String::from_utf8(output.stdout).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let id = first["session_id"].as_str().unwrap();
    // It has left the list, and is still known by its name.
    let said = ada.send("job", "For your return.");
    assert!(said.contains("is not running"), "{said}");
    let output = world.print("job", "Go on again.", &["--resume", id]);
    assert!(output.status.success(), "{output:?}");
    let requests = world.model.requests("job");
    assert_eq!(requests.last().unwrap().text().matches("For your return.").count(), 1, "{}", requests.last().unwrap().news());
    assert!(requests.len() <= 3, "{} requests", requests.len());
}

fn restarted(claude: &Path) {
    let world = World::hooked(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    bob.reached();
    world.broker().restart();
    eventually("ada is connected again", || ada.peer());
    bob.reached();
    ada.send("bob", "After the restart.");
    let request = world.model.request("bob", "the message", |request| request.news().contains("After the restart."));
    assert_eq!(request.text().matches("After the restart.").count(), 1, "{}", request.news());
    eventually("each session has one waiter", || (waiters(&world) == 2).then_some(()));
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

fn busy(claude: &Path) {
    const MESSAGES: usize = 100;
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    bob.reached();
    // One sender may say 30 at once.
    let sender = |name: &str| Session::pulling(&world.broker(), &world.directory(name), name);
    let mut senders = ["ada", "eve", "mia", "zoe"].map(sender);
    let task = world.model.plan("bob", &[("ToolSearch", json!({"query": "select:WebFetch"}))]);
    world.model.hold(&task.cue);
    bob.prompt(&task.cue);
    world.model.request("bob", "its first", |_| true);
    for number in 0..MESSAGES {
        senders[number % 4].send("bob", &format!("This is message {number}."));
    }
    world.model.release(&task.cue);
    let last = format!("This is message {}.", MESSAGES - 1);
    let request = world.model.request("bob", &last, |request| request.text().contains(&last));
    let text = request.text();
    let seen = text.split("This is message ").skip(1).filter_map(|rest| rest.split_once('.')?.0.parse::<usize>().ok());
    assert_eq!(seen.collect::<Vec<_>>(), (0..MESSAGES).collect::<Vec<_>>());
    let requests = world.model.requests("bob").len(); // all of the turns
    assert!(requests <= 10, "{requests} requests");
}
