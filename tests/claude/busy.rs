//! A session that is busy with one model response for a minute while a hundred messages arrive.

use crate::{Test, session::Claude, support::Session, world::World};
use serde_json::json;
use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

pub const TESTS: &[(&str, Test)] = &[("busy::hundred_messages_take_few_turns_in_order", minute)];

/// How long the model takes to respond.
const BUSY: Duration = Duration::from_secs(60);
/// How many messages arrive in that time.
const MESSAGES: usize = 100;
/// The senders. One sender may send 30 messages in a burst.
const SENDERS: [&str; 4] = ["ada", "eve", "mia", "zoe"];

fn minute(claude: &Path) {
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    bob.reached();
    let mut senders = SENDERS.map(|name| Session::pulling(&world.broker(), &world.directory(name), name));
    let task = world.model.plan("bob", &[("ToolSearch", json!({"query": "select:WebFetch"}))]);
    world.model.hold(&task.cue);
    bob.prompt(&task.cue);
    let begun = world.model.request("bob", "its first", |_| true).at;
    let sent: Vec<_> = (0..MESSAGES)
        .map(|number| {
            thread::sleep((begun + BUSY / 120 * number as u32).saturating_duration_since(Instant::now()));
            senders[number % 4].send("bob", &format!("This is message {number}."))["messageId"].clone()
        })
        .collect();
    thread::sleep((begun + BUSY).saturating_duration_since(Instant::now()));
    assert_eq!(world.model.requests("bob").len(), 1, "it is still busy");
    world.model.release(&task.cue);
    sent.iter().for_each(|id| world.let_in(id));
    bob.idle();
    let text = world.model.requests("bob").pop().unwrap().text();
    let seen = text.split("This is message ").skip(1).filter_map(|rest| rest.split_once('.')?.0.parse::<usize>().ok());
    let seen: Vec<usize> = seen.collect();
    for sender in 0..SENDERS.len() {
        let of_sender: Vec<usize> = seen.iter().copied().filter(|number| number % 4 == sender).collect();
        assert_eq!(of_sender, (sender..MESSAGES).step_by(4).collect::<Vec<_>>(), "each once, in order");
    }
    let requests = world.model.requests("bob").len(); // of all turns
    assert!(requests <= 8, "{requests} requests");
}
