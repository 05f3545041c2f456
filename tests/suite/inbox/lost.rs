//! Written messages without proof are neither lost nor repeated without a mark.

use super::{BYPASS, Scene, directory};
use crate::support::{agent::Agent, broker::signal};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[test]
fn resumed_session_gets_the_unproved_message_again() {
    let mut scene = Scene::hooked();
    let (id, _) = scene.offered("one");
    let Scene { broker, place, bob, ada } = scene;
    drop(bob);
    let bob = Agent::start(&broker, &directory(&place, "bob"), "s-1");
    let scene = Scene { broker, place, bob, ada };
    let frame = scene.bob.frame();
    assert_eq!(frame.ids(), [id.as_str()]);
    assert!(frame.content.contains("possible repeat"), "{}", frame.content);
    scene.deliver(&frame);
}

#[test]
fn killed_broker_still_hears_the_proof() {
    let mut scene = Scene::hooked();
    let (_, frame) = scene.offered("one");
    scene.broker.restart();
    let mut eve = Agent::with(&scene.broker, &directory(&scene.place, "eve"), "s-3", BYPASS, &[]);
    let second = scene.send("two");
    // The broker writes held messages while the session's server asks for mail. The server asks again, and so the second one is
    // written, only after it has written all that it was given before: "two", if the broker did not wait for the proof.
    for text in ["held", "held, too"] {
        let held = eve.session.send("bob", text)["messageId"].clone();
        assert_eq!(scene.bob.frame().ids(), [held.as_str().unwrap()], "the next frame waits for the proof of the last");
    }
    scene.deliver(&frame);
    assert_eq!(scene.bob.frame().ids(), [second]);
}

#[test]
fn restarted_broker_writes_nothing_twice() {
    let mut scene = Scene::hooked();
    let (_, frame) = scene.offered("one");
    scene.broker.restart();
    scene.bob.session.id();
    scene.deliver(&frame);
    let (_, frame) = scene.offered("two");
    scene.deliver(&frame);
    assert_eq!(scene.bob.frames().len(), 0);
}

/// Writes the session's status file, with `idle` or `busy`.
fn shows(scene: &Scene, status: &str) {
    let sessions = scene.broker.folder().join(".claude/sessions");
    std::fs::create_dir_all(&sessions).unwrap();
    std::fs::write(sessions.join(format!("{}.json", scene.bob.pid())), json!({"status": status}).to_string()).unwrap();
}

#[test]
fn inbox_that_lets_nothing_in_is_abandoned() {
    let mut scene = Scene::hooked();
    shows(&scene, "idle");
    let id = scene.send("one");
    for write in 1..=3 {
        let frame = scene.bob.frame();
        assert_eq!((frame.ids(), frame.content.contains("possible repeat")), (vec![id.clone()], write > 1));
    }
    scene.once_reason_has("its inbox let in none");
    let sent = scene.ada.send("bob", "two");
    assert!(sent["warning"].as_str().unwrap().contains("cannot be interrupted"), "{sent}");
    let list = scene.bob.session.list();
    let came: Vec<&Value> = list["incomingMessages"].as_array().unwrap().iter().map(|message| &message["id"]).collect();
    assert_eq!(came, [&json!(id), &sent["messageId"]]);
    assert_eq!(list["incomingMessages"][0]["repeat"], true);
    assert_eq!(scene.bob.frames().len(), 0);
}

#[test]
fn busy_session_is_not_sent_a_repeat() {
    let mut scene = Scene::hooked();
    shows(&scene, "busy");
    let (_, frame) = scene.offered("one");
    for _ in 0..3 {
        scene.bob.prompt(json!({"prompt": "go on"}));
    }
    let second = scene.send("two");
    scene.deliver(&frame);
    let frame = scene.bob.frame();
    assert_eq!((frame.ids(), frame.content.contains("possible repeat")), (vec![second], false));
}

#[test]
fn hook_is_heard_after_it_exits() {
    let mut scene = Scene::new();
    let (id, frame) = scene.offered("one");
    signal(scene.broker.pid(), "STOP");
    let begun = Instant::now();
    scene.bob.let_in(&frame);
    assert!(begun.elapsed() < Duration::from_secs(10), "it does not wait for the broker");
    signal(scene.broker.pid(), "CONT");
    scene.once(&id, "delivered");
}
