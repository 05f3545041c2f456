//! Sessions whose conversation changes keep their peer id, and each message is shown once in the right conversation.

use crate::{Test, session::Claude, support::eventually, world::World};
use serde_json::{Value, json};
use std::path::Path;

pub const TESTS: &[(&str, Test)] = &[
    ("conversations::cleared_session_gets_its_mail", cleared),
    ("conversations::compacted_session_gets_its_mail", compacted),
    ("conversations::resumed_session_is_woken_by_waiting_mail", resumed),
    ("conversations::mail_follows_a_conversation_to_another_session", turned),
    ("conversations::branched_session_keeps_its_id", branched),
    ("conversations::forked_session_is_a_separate_peer", forked),
];

/// Checks that the session kept its peer id and gets a message once.
fn goes_on(world: &World, bob: &Claude, id: &Value) {
    assert_eq!(bob.reached()["id"], *id);
    let message = send(world, id, "Are you still there?");
    bob.lets_in(&message, "Are you still there?");
}

fn send(world: &World, to: &Value, text: &str) -> Value {
    world.send(to.as_str().unwrap(), text)
}

fn cleared(claude: &Path) {
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    let id = &bob.reached()["id"];
    bob.call("list_peers", json!({"scope": "machine"}));
    bob.clear();
    goes_on(&world, &bob, id);
}

fn compacted(claude: &Path) {
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    let id = &bob.reached()["id"];
    bob.call("list_peers", json!({"scope": "machine"}));
    bob.prompt("/compact");
    eventually("the conversation is compacted", || bob.screen().contains("Compacted (").then_some(()));
    bob.idle();
    goes_on(&world, &bob, id);
}

fn resumed(claude: &Path) {
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    let peer = bob.reached();
    // An empty session cannot be resumed.
    bob.call("list_peers", json!({"scope": "machine"}));
    let conversation = bob.id();
    bob.exit();
    world.deserted();
    send(&world, &peer["id"], "For your return.");
    let bob = Claude::with(&world, "bob", &["--resume", &conversation]);
    bob.shown("For your return.");
    bob.idle();
    goes_on(&world, &bob, &peer["id"]);
    assert_eq!(bob.times_shown("For your return."), 1);
}

fn turned(claude: &Path) {
    let world = World::hooked(claude);
    let list =
        |session: &Claude| -> Value { serde_json::from_str(&session.call("list_peers", json!({"scope": "machine"})).1).unwrap() };
    let bob = Claude::start(&world, "bob");
    let (first, first_id) = (bob.id(), list(&bob)["self"]["id"].clone());
    bob.exit();
    let eve = Claude::beside(&world, "eve", "bob", &[]);
    let (second, second_id) = (eve.id(), list(&eve)["self"]["id"].clone());
    assert_ne!(first_id, second_id);
    for (conversation, id, other_id, text) in [
        (&first, &first_id, &second_id, "For the first."),
        (&second, &second_id, &first_id, "For the second."),
        (&first, &first_id, &second_id, "For the first again."),
    ] {
        send(&world, id, text);
        eve.turn_to(&format!("/resume {conversation}"));
        list(&eve); // the next prompt tells the broker which conversation runs
        eve.shown(text);
        eve.idle();
        assert_eq!(eve.reached()["id"], *id);
        assert_eq!(list(&eve)["self"]["id"], *id);
        assert!(world.peers().iter().all(|peer| peer["id"] != *other_id), "{:?}", world.peers());
        assert_eq!(eve.times_shown(text), 1);
    }
}

fn branched(claude: &Path) {
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    let id = &bob.reached()["id"];
    bob.call("list_peers", json!({"scope": "machine"}));
    let trunk = bob.id();
    bob.turn_to("/branch");
    goes_on(&world, &bob, id);
    // And back again, with no mail left behind in either conversation.
    bob.turn_to(&format!("/resume {trunk}"));
    assert_eq!(bob.reached()["id"], *id);
    assert_eq!(world.peers().len(), 1, "{:?}", world.peers());
}

fn forked(claude: &Path) {
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    bob.call("list_peers", json!({"scope": "machine"}));
    let (trunk, id) = (bob.id(), bob.reached()["id"].clone());
    let fork = Claude::beside(&world, "eve", "bob", &["--resume", &trunk, "--fork-session"]);
    let fork_id = fork.reached()["id"].clone();
    assert_ne!((fork.id(), &fork_id), (trunk.clone(), &id));
    for (session, id, text) in [(&bob, &id, "For the trunk."), (&fork, &fork_id, "For the fork.")] {
        send(&world, id, text);
        session.shown(text);
        session.idle();
        session.reached();
    }
    // Mail for the original session waits until it returns, even while forks of it run.
    bob.exit();
    send(&world, &id, "For your return.");
    let bob = Claude::with(&world, "bob", &["--resume", &trunk]);
    bob.shown("For your return.");
    bob.idle();
    assert_eq!((&bob.reached()["id"], &fork.reached()["id"]), (&id, &fork_id));
    for (session, texts) in [(&bob, [1, 0, 1]), (&fork, [0, 1, 0])] {
        let times = ["For the trunk.", "For the fork.", "For your return."].map(|text| session.times_shown(text));
        assert_eq!(times, texts);
    }
}
