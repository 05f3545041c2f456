//! A session that is busy for long, in the middle of one answer of its model: what comes meanwhile is noticed by its waiter, which
//! does not leave it to the results of tools for ever.

use crate::{
    Test,
    session::Claude,
    support::{Session, eventually},
    world::World,
};
use serde_json::json;
use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[("busy::a_hundred_messages_in_a_busy_minute_are_seen_in_order_in_few_turns", minute)];

/// How long the model thinks.
const BUSY: Duration = Duration::from_secs(60);
/// How many messages come meanwhile.
const MESSAGES: usize = 100;

fn minute(claude: &Path) {
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    bob.reached();
    // One sender may say 30 at once.
    let sender = |name: &str| Session::pulling(&world.broker(), &world.directory(name), name);
    let mut senders = ["ada", "eve", "mia", "zoe"].map(sender);
    let mut send = |number: usize| senders[number % 4].send("bob", &format!("This is message {number}."));
    let task = world.model.plan("bob", &[("ToolSearch", json!({"query": "select:WebFetch"}))]);
    world.model.hold(&task.cue);
    bob.prompt(&task.cue);
    let begun = world.model.request("bob", "its first", |_| true).at;
    (0..MESSAGES / 2).for_each(|number| _ = send(number));
    let woken = |peer: &serde_json::Value| peer["deliveryReason"] != "hook: waiter connected";
    eventually("the waiter is tired of waiting for a tool's result", || bob.peer().filter(woken));
    (MESSAGES / 2..MESSAGES).for_each(|number| _ = send(number));
    thread::sleep((begun + BUSY).saturating_duration_since(Instant::now()));
    assert_eq!(world.model.requests("bob").len(), 1, "it is still busy");
    world.model.release(&task.cue);
    let last = format!("This is message {}.", MESSAGES - 1);
    let request = world.model.request("bob", &last, |request| request.text().contains(&last));
    let text = request.text();
    let seen = text.split("This is message ").skip(1).filter_map(|rest| rest.split_once('.')?.0.parse::<usize>().ok());
    assert_eq!(seen.collect::<Vec<_>>(), (0..MESSAGES).collect::<Vec<_>>());
    let requests = world.model.requests("bob").len(); // all of the turns
    assert!(requests <= 5, "{requests} requests");
}
