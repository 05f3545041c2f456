//! What is special to Codex: a daemon runs its sessions, and takes messages for them.

use crate::{
    Test,
    agents::Agent,
    doors::{hand_over, send, shown},
    support::{broker::signal, events::Peer, eventually},
    terminal::Terminal,
    world::World,
};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

pub const TESTS: &[(&str, Test)] = &[
    ("text_is_not_the_users", text_is_not_the_users),
    ("long_text_is_whole", long_text_is_whole),
    ("interrupted_turn_proves_nothing", interrupted_turn_proves_nothing),
    ("killed_daemon_loses_no_message", killed_daemon_loses_no_message),
    ("run_without_daemon_has_no_door", run_without_daemon_has_no_door),
    ("unattended_thread_is_not_woken", unattended_thread_is_not_woken),
    ("returning_user_finds_the_mail", returning_user_finds_the_mail),
];

/// The daemon that runs this session.
fn daemon_of(peer: &Value) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", peer["pid"])).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

/// What the model was shown in its last request.
fn input(world: &World) -> Vec<Value> {
    let request: Value = serde_json::from_str(&world.model.last()).unwrap();
    request["input"].as_array().unwrap().clone()
}

fn text_is_not_the_users(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::open(&world, "work");
    let id = send(&world, &other, &json!("work"), "It is 8080");
    world.broker.message_once("delivered", &id);
    shown(&world, "It is 8080");
    let title = format!("Message from {}", other.name);
    let (texts, others): (Vec<_>, Vec<_>) = input(&world).into_iter().partition(|item| item.to_string().contains("It is 8080"));
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert_eq!(texts[0]["type"], "function_call_output");
    assert!(others.iter().any(|item| item["role"] == "user" && item.to_string().contains(&title)), "{others:?}");
    terminal.shows(&title);
}

fn long_text_is_whole(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let _terminal = Terminal::open(&world, "work");
    let lines: Vec<String> = (0..300).map(|number| format!("Zeile {number:03} über Größe")).collect();
    let id = send(&world, &other, &json!("work"), &lines.join("\n"));
    world.broker.message_once("delivered", &id);
    shown(&world, "Zeile 299");
    let pieces: Vec<Value> = input(&world).into_iter().filter(|item| item["name"] == "claude_peers_message").collect();
    let text: String = pieces.iter().map(|item| item["output"].as_str().unwrap()).collect();
    let places: Vec<Vec<usize>> =
        lines.iter().map(|line| text.match_indices(line.as_str()).map(|(place, _)| place).collect()).collect();
    assert!(places.iter().all(|places| places.len() == 1), "{text}");
    assert!(places.is_sorted(), "{text}");
}

fn interrupted_turn_proves_nothing(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let handed = hand_over(&world, &other, "It is 8080", "offered");
    let terminal = Terminal::open(&world, "work");
    terminal.prompt("Please call the tools.");
    let id = handed.id();
    terminal.keys(&["Escape"]);
    terminal.shows("interrupted");
    handed.answer.send(()).unwrap();
    world.broker.message_once("delivered", &id);
    shown(&world, "It is 8080");
    assert!(world.model.last().contains("possible repeat"), "{}", world.model.last());
}

fn killed_daemon_loses_no_message(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let handed = hand_over(&world, &other, "It is 8080", "offered");
    let terminal = Terminal::open(&world, "work");
    let peer = terminal.reached();
    terminal.prompt("Please call the tools.");
    let id = handed.id();
    signal(daemon_of(&peer).try_into().unwrap(), "KILL");
    eventually("the session is gone", || terminal.peer().is_none().then_some(()));
    drop(terminal);
    handed.answer.send(()).unwrap();

    let terminal = Terminal::open_with(&world, "work", &["resume", "--last"]);
    assert_eq!(terminal.reached()["id"], peer["id"], "the resumed session is the same peer");
    world.broker.message_once("delivered", &id);
    shown(&world, "It is 8080");
    assert!(world.model.last().contains("possible repeat"), "{}", world.model.last());
}

fn run_without_daemon_has_no_door(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let _daemon = Terminal::open(&world, "work");
    world.model.plan(&[("list_peers", json!({"scope": "machine"}))]);
    let said = world.prompt(false);
    assert!(world.model.last().contains("its client has no inbox"), "{said}: {}", world.model.last());
}

fn unattended_thread_is_not_woken(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::open(&world, "work");
    let to = terminal.reached()["id"].clone();
    terminal.close();
    let is_left = |peer: &Value| peer["activity"]["doing"] == "unattended";
    let peer = eventually("the session is unattended", || terminal.peer().filter(is_left));
    assert_eq!(peer["delivery"], "pull", "{peer}");

    let http = other.over(&world.broker.http());
    let send = |text: &str, wake: bool| http.post("/v1/send", &json!({"to": to, "text": text, "wake": wake})).json();
    let waits = send("It is 8080", false);
    assert!(waits["warning"].as_str().unwrap().contains("is unattended"), "{waits}");
    let wakes = send("It is urgent", true);
    assert_eq!(wakes["warning"], Value::Null, "{wakes}");
    for sent in [&waits, &wakes] {
        world.broker.message_once("delivered", &sent["messageId"]);
    }
    shown(&world, "It is 8080");
    shown(&world, "It is urgent");
    let waits = send("That was it", false);
    assert!(waits["warning"].as_str().unwrap().contains("is unattended"), "the request has ended: {waits}");
}

fn returning_user_finds_the_mail(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::open(&world, "work");
    terminal.prompt("Good morning");
    terminal.shows("Worked for");
    let to = terminal.reached()["id"].clone();
    terminal.close();
    eventually("the session is unattended", || terminal.peer().filter(|peer| peer["activity"]["doing"] == "unattended"));
    let id = send(&world, &other, &to, "It is 8080");
    assert_eq!(world.broker.message(&id)["state"], "queued");
    let _terminal = Terminal::start(&world, "work", &["resume", "--last"]);
    world.broker.message_once("delivered", &id);
    shown(&world, "It is 8080");
}
