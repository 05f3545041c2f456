//! What becomes of a session's peer and mail when it is cleared, left, resumed or killed.

use crate::{Test, session::Claude, support::eventually, world::World};
use serde_json::{Value, json};
use std::path::Path;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("life::clear_keeps_the_peer", cleared),
    ("life::a_session_that_is_resumed_gets_its_mail", resumed),
    ("life::a_session_outlives_the_broker", restarted),
    ("life::a_killed_session_leaves_no_process_behind", killed),
    ("life::a_killed_terminal_leaves_no_process_behind", hung_up),
];

fn connected(peer: &Value) -> bool {
    peer["status"] == "connected"
}

fn cleared(claude: &Path) {
    let world = World::new(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    let before = bob.peer().unwrap();
    bob.clear();
    ada.send("bob", "Are you still there?");
    let (_, list) = bob.call("list_peers", json!({"scope": "machine"}));
    assert!(list.contains("Are you still there?"), "{list}");
    let after = bob.peer().unwrap();
    assert_eq!((&after["id"], &after["pid"]), (&before["id"], &before["pid"]));
    assert_eq!(world.peers().len(), 2);
}

fn resumed(claude: &Path) {
    let world = World::new(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    // A session in which nothing was said cannot be resumed.
    bob.call("list_peers", json!({"scope": "machine"}));
    let (id, before) = (bob.id(), bob.peer().unwrap());
    bob.exit();
    eventually("its peer is gone", || (world.peers().iter().filter(|peer| connected(peer)).count() == 1).then_some(()));
    let said = ada.send(before["id"].as_str().unwrap(), "For your return.");
    assert!(said.contains("is not running"), "{said}");
    let bob = Claude::with(&world, "bob", &["--resume", &id]);
    let after = bob.peer().unwrap();
    assert_eq!(after["id"], before["id"]);
    let (_, list) = bob.call("list_peers", json!({"scope": "machine"}));
    assert!(list.contains("For your return."), "{list}");
}

fn restarted(claude: &Path) {
    let world = World::new(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    let before = bob.peer().unwrap();
    ada.send("bob", "Before the restart.");
    world.broker().restart();
    eventually("both are connected again", || ada.peer().and(bob.peer()));
    ada.send("bob", "After the restart.");
    let (_, list) = bob.call("list_peers", json!({"scope": "machine"}));
    let list: Value = serde_json::from_str(&list).unwrap();
    let texts = list["incomingMessages"].as_array().unwrap().iter().map(|message| &message["text"]);
    assert_eq!(texts.collect::<Vec<_>>(), ["Before the restart.", "After the restart."], "{list}");
    assert_eq!(bob.peer().unwrap()["id"], before["id"]);
}

fn killed(claude: &Path) {
    let world = World::new(claude);
    for signal in ["HUP", "KILL"] {
        let ada = Claude::start(&world, "ada");
        assert!(!world.processes().is_empty());
        ada.kill(signal);
        world.deserted();
        eventually("its peer is gone", || (!world.peers().iter().any(connected)).then_some(()));
    }
}

fn hung_up(claude: &Path) {
    let world = World::new(claude);
    let _ada = Claude::start(&world, "ada");
    let server = String::from_utf8(world.tmux(&["display-message", "-p", "#{pid}"]).stdout).unwrap();
    crate::support::broker::signal(server.trim().parse().unwrap(), "KILL");
    world.deserted();
    eventually("its peer is gone", || (!world.peers().iter().any(connected)).then_some(()));
}
