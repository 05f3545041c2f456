//! What was written and is not known to be let in: never lost, never doubled without a mark.

use super::{Scene, directory};
use crate::support::{agent::Agent, broker::signal};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[test]
fn resumed_session_gets_the_unproved_message_again() {
    let mut scene = Scene::new();
    scene.bob.prompt(json!({}));
    let id = scene.send("one");
    scene.bob.frame();
    scene.once(&id, "offered");
    let Scene { broker, place, bob, ada } = scene;
    drop(bob);
    let bob = Agent::start(&broker, &directory(&place, "bob"), "s-1");
    let scene = Scene { broker, place, bob, ada };
    let frame = scene.bob.frame();
    assert_eq!(frame.ids(), [id.as_str()]);
    assert!(frame.content.contains("possible repeat"), "{}", frame.content);
    scene.bob.let_in(&frame);
    scene.once(&id, "delivered");
}

#[test]
fn killed_broker_still_hears_the_proof() {
    let mut scene = Scene::new();
    scene.bob.prompt(json!({}));
    let first = scene.send("one");
    let frame = scene.bob.frame();
    scene.once(&first, "offered");
    scene.broker.kill();
    scene.broker.launch();
    scene.bob.session.id(); // connected again
    let second = scene.send("two");
    assert_eq!(scene.bob.frames().len(), 0, "the next frame still waits for the proof of the last");
    scene.bob.let_in(&frame);
    scene.once(&first, "delivered");
    assert_eq!(scene.bob.frame().ids(), [second]);
}

#[test]
fn restarted_broker_writes_nothing_twice() {
    let mut scene = Scene::new();
    scene.bob.prompt(json!({}));
    let first = scene.send("one");
    let frame = scene.bob.frame();
    scene.once(&first, "offered");
    scene.broker.restart();
    scene.bob.session.id();
    scene.bob.let_in(&frame);
    scene.once(&first, "delivered");
    let second = scene.send("two");
    let frame = scene.bob.frame();
    assert_eq!(frame.ids(), [second.as_str()]);
    scene.bob.let_in(&frame);
    scene.once(&second, "delivered");
    assert_eq!(scene.bob.frames().len(), 0);
}

/// The session shows itself idle, or busy, in its status file.
fn shows(scene: &Scene, status: &str) {
    let sessions = scene.broker.folder().join(".claude/sessions");
    std::fs::create_dir_all(&sessions).unwrap();
    std::fs::write(sessions.join(format!("{}.json", scene.bob.pid())), json!({"status": status}).to_string()).unwrap();
}

#[test]
fn inbox_that_lets_nothing_in_is_abandoned() {
    let mut scene = Scene::new();
    scene.bob.prompt(json!({}));
    shows(&scene, "idle");
    let id = scene.send("one");
    for write in 1..=3 {
        let frame = scene.bob.frame();
        assert_eq!((frame.ids(), frame.content.contains("possible repeat")), (vec![id.clone()], write > 1));
    }
    scene.once_reason_has("its inbox let in none");
    let sent = scene.ada.send("bob", "two");
    assert!(sent["warning"].as_str().unwrap().contains("cannot be interrupted"), "{sent}");
    let list = scene.bob.session.tool("list_peers", json!({"scope": "machine"}));
    let came: Vec<&Value> = list["incomingMessages"].as_array().unwrap().iter().map(|message| &message["id"]).collect();
    assert_eq!(came, [&json!(id), &sent["messageId"]]);
    assert_eq!(list["incomingMessages"][0]["repeat"], true);
    assert_eq!(scene.bob.frames().len(), 0);
}

#[test]
fn busy_session_is_not_sent_a_repeat() {
    let mut scene = Scene::new();
    scene.bob.prompt(json!({}));
    shows(&scene, "busy");
    let first = scene.send("one");
    let frame = scene.bob.frame();
    scene.once(&first, "offered");
    for _ in 0..3 {
        scene.bob.prompt(json!({"prompt": "go on"}));
    }
    let second = scene.send("two");
    scene.bob.let_in(&frame);
    scene.once(&first, "delivered");
    let frame = scene.bob.frame();
    assert_eq!((frame.ids(), frame.content.contains("possible repeat")), (vec![second], false));
}

#[test]
fn hook_is_heard_after_it_exits() {
    let mut scene = Scene::new();
    let id = scene.send("one");
    let frame = scene.bob.frame();
    scene.once(&id, "offered");
    signal(scene.broker.pid(), "STOP");
    let begun = Instant::now();
    scene.bob.let_in(&frame);
    assert!(begun.elapsed() < Duration::from_secs(10), "it does not wait for the broker");
    signal(scene.broker.pid(), "CONT");
    scene.once(&id, "delivered");
}
