//! Killed sessions and servers: their peers, processes and mail.

use crate::{
    Test,
    session::Claude,
    support::{broker::signal, eventually},
    world::World,
};
use serde_json::{Value, json};
use std::path::Path;

pub const TESTS: &[(&str, Test)] = &[
    ("life::killed_session_leaves_no_process_behind", killed),
    ("life::killed_terminal_leaves_no_process_behind", hung_up),
    ("life::session_gets_mail_after_its_server_died", server_killed),
    ("life::proof_needs_no_server", server_killed_early),
];

fn connected(peer: &Value) -> bool {
    peer["status"] == "connected"
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
    signal(server.trim().parse().unwrap(), "KILL");
    world.deserted();
    eventually("its peer is gone", || (!world.peers().iter().any(connected)).then_some(()));
}

/// The user has the client start the server again.
fn reconnect(session: &Claude) {
    session.prompt("/mcp reconnect claude-peers");
    eventually("it is connected again", || session.screen().to_lowercase().contains("reconnected to claude-peers").then_some(()));
}

/// The client does not restart the server by itself.
fn server_killed(claude: &Path) {
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    let id = bob.reached()["id"].clone();
    signal(world.server(), "KILL");
    eventually("its peer is away", || bob.peer().is_none().then_some(()));
    let sent = world.send(id.as_str().unwrap(), "Is the parser done?");
    bob.prompt("Go on.");
    let request = world.model.request("bob", "its prompt", |request| request.news().contains("Go on."));
    assert!(!request.text().contains("Is the parser done?"), "{}", request.text());
    bob.idle();
    assert_eq!(world.broker().message(&sent)["state"], "queued");
    reconnect(&bob);
    bob.lets_in(&sent, "Is the parser done?");
    assert_eq!(bob.reached()["id"], id);
}

fn server_killed_early(claude: &Path) {
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    let id = bob.reached()["id"].clone();
    let (sent, cue) = bob.offered_in_a_turn("Stop: the schema changed.");
    signal(world.server(), "KILL");
    eventually("its peer is away", || bob.peer().is_none().then_some(()));
    world.model.release(&cue);
    bob.lets_in(&sent, "Stop: the schema changed.");
    // The next server does not show it again.
    reconnect(&bob);
    assert_eq!(bob.reached()["id"], id);
    bob.call("check_messages", json!({}));
    assert_eq!(bob.times_shown("Stop: the schema changed."), 1);
}
