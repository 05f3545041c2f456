//! Messages are let into a session in a terminal, through the agent's own door.

use crate::{
    Test,
    agents::Agent,
    support::{events::Peer, eventually},
    terminal::Terminal,
    world::World,
};
use serde_json::{Value, json};
use std::path::PathBuf;

pub const TESTS: &[(&str, Test)] = &[
    ("idle_session_wakes", idle_session_wakes),
    ("messages_stay_in_order", messages_stay_in_order),
    ("typed_text_stays", typed_text_stays),
    ("cleared_session_keeps_its_mail", cleared_session_keeps_its_mail),
];

/// Sends a message to the session in `work`. Returns its id.
pub fn send(world: &World, from: &Peer, text: &str) -> Value {
    from.over(&world.broker.http()).post("/v1/send", &json!({"to": "work", "text": text})).json()["messageId"].clone()
}

/// Waits until its model is shown this text, exactly once.
pub fn shown(world: &World, text: &str) {
    eventually(&format!("the model is shown {text:?}"), || world.model.last().contains(text).then_some(()));
    assert_eq!(world.model.last().matches(text).count(), 1, "{}", world.model.last());
}

fn idle_session_wakes(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let _terminal = Terminal::open(&world, "work");
    let id = send(&world, &other, "It is 8080");
    shown(&world, "It is 8080");
    world.broker.message_once("delivered", &id);
}

fn messages_stay_in_order(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let _terminal = Terminal::open(&world, "work");
    let ids: Vec<Value> = (0..5).map(|number| send(&world, &other, &format!("number {number}."))).collect();
    for id in &ids {
        world.broker.message_once("delivered", id);
    }
    shown(&world, "number 4.");
    let (text, mut places) = (world.model.last(), Vec::new());
    for number in 0..5 {
        let found: Vec<usize> = text.match_indices(&format!("number {number}.")).map(|(place, _)| place).collect();
        assert_eq!(found.len(), 1, "{number}: {text}");
        places.extend(found);
    }
    assert!(places.is_sorted(), "{text}");
}

fn typed_text_stays(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::open(&world, "work");
    terminal.types("half a sentence");
    let id = send(&world, &other, "It is 8080");
    world.broker.message_once("delivered", &id);
    shown(&world, "It is 8080");
    assert!(!world.model.last().contains("half a sentence"), "{}", world.model.last());
    terminal.shows("half a sentence");
}

fn cleared_session_keeps_its_mail(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::open(&world, "work");
    let peer = terminal.reached()["id"].clone();
    let id = send(&world, &other, "It is 8080");
    world.broker.message_once("delivered", &id);
    terminal.prompt(agent.clear.unwrap());
    terminal.shows_no_more("It is 8080");
    let id = send(&world, &other, "It is 9090");
    world.broker.message_once("delivered", &id);
    shown(&world, "It is 9090");
    assert!(!world.model.last().contains("It is 8080"), "{}", world.model.last());
    assert_eq!(terminal.reached()["id"], peer);
}
