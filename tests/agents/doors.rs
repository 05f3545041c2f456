//! Messages are let into a session in a terminal, through the agent's own door.

use crate::{
    Test,
    agents::Agent,
    support::{Broker, PATIENCE, events::Peer, eventually},
    terminal::Terminal,
    world::World,
};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
};

pub const TESTS: &[(&str, Test)] = &[
    ("idle_session_wakes", idle_session_wakes),
    ("messages_stay_in_order", messages_stay_in_order),
    ("typed_text_stays", typed_text_stays),
    ("busy_session_reads_it_once", busy_session_reads_it_once),
    ("killed_agent_loses_no_message", killed_agent_loses_no_message),
    ("cleared_session_is_reached", cleared_session_is_reached),
];

/// Sends a message to this peer. Returns its id.
pub fn send(world: &World, from: &Peer, to: &Value, text: &str) -> Value {
    from.over(&world.broker.http()).post("/v1/send", &json!({"to": to, "text": text})).json()["messageId"].clone()
}

/// Waits until its model is shown this text, exactly once.
pub fn shown(world: &World, text: &str) {
    eventually(&format!("the model is shown {text:?}"), || world.model.last().contains(text).then_some(()));
    assert_eq!(world.model.last().matches(text).count(), 1, "it is shown once: {}", world.model.last());
}

/// A message that is handed over while the model thinks about the result of its first call.
pub struct Handed {
    id: Receiver<Value>,
    /// Lets the model answer.
    pub answer: Sender<()>,
}

/// `state` is what the message has come to by then.
impl Handed {
    /// The message, once it is handed over.
    pub fn id(&self) -> Value {
        self.id.recv_timeout(PATIENCE).expect("the message is handed over")
    }
}

pub fn hand_over(world: &World, from: &Peer, text: &'static str, state: &'static str) -> Handed {
    let (answer, answers) = channel::<()>();
    let (broker, from): (Broker, Peer) = (world.broker.shared(), from.clone());
    let (sender, id) = channel();
    world.model.plan_with(&[("list_peers", json!({"scope": "machine"}))], move || {
        let message = json!({"to": "work", "text": text});
        let id = from.over(&broker.http()).post("/v1/send", &message).json()["messageId"].clone();
        broker.message_once(state, &id);
        sender.send(id).unwrap();
        _ = answers.recv(); // ends with the test at the latest
        Value::Null
    });
    Handed { id, answer }
}

fn idle_session_wakes(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::open(&world, "work");
    let to = terminal.reached()["id"].clone();
    let id = send(&world, &other, &to, "It is 8080");
    shown(&world, "It is 8080");
    world.broker.message_once("delivered", &id);
}

fn messages_stay_in_order(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::open(&world, "work");
    let to = terminal.reached()["id"].clone();
    let ids: Vec<Value> = (0..5).map(|number| send(&world, &other, &to, &format!("number {number}."))).collect();
    for id in &ids {
        world.broker.message_once("delivered", id);
    }
    shown(&world, "number 4.");
    let (text, mut places) = (world.model.last(), Vec::new());
    for number in 0..5 {
        let found: Vec<usize> = text.match_indices(&format!("number {number}.")).map(|(place, _)| place).collect();
        assert_eq!(found.len(), 1, "number {number} is shown once");
        places.extend(found);
    }
    assert!(places.is_sorted(), "{places:?}");
}

fn typed_text_stays(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::open(&world, "work");
    terminal.types("half a sentence");
    let id = send(&world, &other, &terminal.reached()["id"], "It is 8080");
    world.broker.message_once("delivered", &id);
    shown(&world, "It is 8080");
    assert!(!world.model.last().contains("half a sentence"));
    terminal.shows("half a sentence");
}

fn cleared_session_is_reached(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::open(&world, "work");
    let before = terminal.reached()["id"].clone();
    let id = send(&world, &other, &before, "It is 8080");
    world.broker.message_once("delivered", &id);
    let now = terminal.clear("It is 8080")["id"].clone();
    assert_eq!(now == before, agent.terminal.unwrap().clear_keeps_peer);
    let id = send(&world, &other, &now, "It is 9090");
    world.broker.message_once("delivered", &id);
    shown(&world, "It is 9090");
    assert!(!world.model.last().contains("It is 8080"));
}

fn busy_session_reads_it_once(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::open(&world, "work");
    let handed = hand_over(&world, &other, "It is 8080", "offered");
    terminal.prompt("Please call the tools.");
    let id = handed.id();
    assert_eq!(world.broker.message(&id)["state"], "offered", "the model has not read it yet");
    handed.answer.send(()).unwrap();
    world.broker.message_once("delivered", &id);
    shown(&world, "It is 8080");
}

fn killed_agent_loses_no_message(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::open(&world, "work");
    let peer = terminal.reached();
    let handed = hand_over(&world, &other, "It is 8080", "offered");
    terminal.prompt("Please call the tools.");
    let id = handed.id();
    terminal.stored("Please call the tools.");
    terminal.kill();
    eventually("the session is gone", || terminal.peer().is_none().then_some(()));
    assert_eq!(world.broker.message(&id)["state"], "offered", "nothing proves that it was read");
    drop(terminal);
    handed.answer.send(()).unwrap();

    let terminal = Terminal::open_with(&world, "work", agent.terminal.unwrap().resume);
    assert_eq!(terminal.reached()["id"], peer["id"], "the resumed session is the same peer");
    world.broker.message_once("delivered", &id);
    eventually("it is shown again, marked", || world.model.last().contains("possible repeat").then_some(()));
    assert!(world.model.last().contains("It is 8080"));
}
