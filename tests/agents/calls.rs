//! An agent calls our tools in a run without a terminal, with its default settings.

use crate::{Test, agents::Agent, support::events::Peer, world::World};
use serde_json::{Value, json};
use std::path::PathBuf;

pub const TESTS: &[(&str, Test)] = &[
    ("tools_run_without_a_question", tools_run_without_a_question),
    ("waiting_mail_is_shown_once", waiting_mail_is_shown_once),
    ("resumed_session_is_the_same_peer", resumed_session_is_the_same_peer),
];

/// The peer that was registered last, other than those of the tests, and gone by now.
fn id_of(world: &World, other: &Peer) -> String {
    let id = other.over(&world.broker.http()).get("/v1/history").json()["messages"][0]["from"].clone();
    id.as_str().unwrap().to_owned()
}

fn tools_run_without_a_question(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    world.model.plan(&[
        ("list_peers", json!({"scope": "machine"})),
        ("send_message", json!({"targetPeerId": other.id, "message": "Which port?"})),
        ("set_summary", json!({"summary": "Asking for the port"})),
        ("check_messages", json!({})),
    ]);
    let said = world.prompt(false);
    let messages = other.over(&world.broker.http()).get("/v1/history").json()["messages"].clone();
    assert_eq!((messages.as_array().map(Vec::len), &messages[0]["text"]), (Some(1), &json!("Which port?")), "{said}");
    let shown = world.model.last();
    for words in [other.id.as_str(), "Asking for the port"] {
        assert!(shown.contains(words), "its model was not shown {words:?}: {said}");
    }
    assert_eq!(world.model.left(), 0, "all calls were made: {said}");
}

/// How often the model's last request has this text.
fn times(world: &World, text: &str) -> usize {
    world.model.last().matches(text).count()
}

fn waiting_mail_is_shown_once(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let (http, name) = (world.broker.http(), "work");
    let other = Peer::register(&http, "other", json!({}));
    // The message is sent while the agent runs: between its first call and its second.
    let (to_it, over) = (json!({"to": name, "text": "It is 8080"}), other.over(&http));
    let sent = world.model.plan_with(
        &[
            ("list_peers", json!({"scope": "machine"})),
            ("set_summary", json!({"summary": "here"})),
            ("check_messages", json!({})),
        ],
        move || over.post("/v1/send", &to_it).json()["messageId"].clone(),
    );
    let said = world.prompt(false);
    let id: Value = sent.recv().unwrap();
    assert_eq!(times(&world, "It is 8080"), 1, "{said}");
    assert!(times(&world, id.as_str().unwrap()) > 0, "{said}");
    world.broker.message_once("delivered", &id);
}

fn resumed_session_is_the_same_peer(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let ask = ("send_message", json!({"targetPeerId": other.id, "message": "Which port?"}));
    world.model.plan(std::slice::from_ref(&ask));
    world.prompt(false);
    let id = id_of(&world, &other);
    other.over(&world.broker.http()).post("/v1/send", &json!({"to": id, "text": "It is 8080"})).json();

    world.model.plan(&[("check_messages", json!({})), ask]);
    let said = world.prompt(true);
    assert_eq!(times(&world, "It is 8080"), 1, "{said}");
    assert_eq!(id_of(&world, &other), id, "{said}");
}
