//! Messages that come in through the inbox of a session's client.

mod answers;
mod frames;
mod held;
mod lost;
mod who;

use crate::support::{Broker, Session, agent::Agent, eventually, folder};
use serde_json::{Value, json};

/// A broker, a session with an inbox, and one that writes to it.
pub struct Scene {
    pub broker: Broker,
    pub place: tempfile::TempDir,
    pub bob: Agent,
    pub ada: Session,
}

impl Scene {
    pub fn new() -> Self {
        Self::with(&[], &[])
    }

    /// The same, with these start flags of the session with the inbox and this environment.
    pub fn with(flags: &[&str], env: &[(&str, &str)]) -> Self {
        let (broker, place) = (Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]), folder());
        let bob = Agent::with(&broker, &directory(&place, "bob"), "s-1", flags, env);
        let ada = Session::pulling(&broker, &directory(&place, "ada"), "s-2");
        Self { broker, place, bob, ada }
    }

    /// Sends a message to the session with the inbox; its id.
    pub fn send(&mut self, text: &str) -> String {
        self.ada.send("bob", text)["messageId"].as_str().unwrap().to_owned()
    }

    /// Waits until a message is in this state; what is known of it.
    pub fn once(&self, id: &str, state: &str) -> Value {
        eventually(&format!("{id} is {state}"), || {
            Some(self.broker.message(&json!(id))).filter(|message| message["state"] == state)
        })
    }

    /// The session with the inbox, as lists show it.
    pub fn peer(&self) -> Value {
        let list = self.broker.http().get("/v1/peers?scope=machine").json();
        list["peers"].as_array().unwrap().iter().find(|peer| peer["name"] == "bob").unwrap().clone()
    }

    /// Waits until the reason for its route holds these words.
    pub fn once_reason_has(&self, words: &str) {
        eventually(&format!("its route: {words}"), || {
            self.peer()["deliveryReason"].as_str().unwrap().contains(words).then_some(())
        });
    }
}

pub fn directory(place: &tempfile::TempDir, name: &str) -> std::path::PathBuf {
    let directory = place.path().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

#[test]
fn a_message_is_written_at_once_and_delivered_once_it_is_let_in() {
    let mut scene = Scene::new();
    assert_eq!(scene.peer()["delivery"], "inbox");
    let id = scene.send("Is the parser done?\nAnd the lexer?");
    let frame = scene.bob.frame();
    assert_eq!(frame.ids(), [id.as_str()]);
    assert!(frame.content.contains(" from-name=\"ada\">\n> Is the parser done?\n> And the lexer?\nid m"), "{}", frame.content);
    let offered = scene.once(&id, "offered");
    assert_eq!((&offered["route"], offered.get("deliveredAt")), (&json!("inbox"), None));
    scene.bob.let_in(&frame);
    let delivered = scene.once(&id, "delivered");
    assert_eq!((&delivered["route"], &delivered["offeredAt"]), (&json!("inbox"), &offered["offeredAt"]));
    scene.once_reason_has("its hook confirms");
    assert_eq!((scene.bob.session.check(), scene.bob.frames().len()), (Vec::new(), 0));
}

#[test]
fn what_waits_meanwhile_is_one_frame_a_sender_once_the_last_was_let_in() {
    let mut scene = Scene::new();
    scene.bob.prompt(json!({})); // its hook is known from the start
    let first = scene.send("one");
    let frame = scene.bob.frame();
    scene.once(&first, "offered");
    let mut eve = Session::pulling(&scene.broker, &directory(&scene.place, "eve"), "s-3");
    let mut expected = (Vec::new(), Vec::new());
    for number in 0..20 {
        expected.0.push(scene.send(&format!("ada's {number}")));
        expected.1.push(eve.send("bob", &format!("eve's {number}"))["messageId"].as_str().unwrap().to_owned());
    }
    assert_eq!(scene.bob.frames().len(), 0, "the first was not let in yet");
    assert_eq!(scene.bob.session.check(), [] as [Value; 0], "nothing overtakes it");
    scene.bob.let_in(&frame);
    let (ada, eve) = (scene.bob.frame(), scene.bob.frame());
    assert_eq!((ada.ids(), eve.ids()), expected);
    assert!(ada.content.contains("from-name=\"ada\"") && eve.content.contains("from-name=\"eve\""));
    [&ada, &eve].iter().for_each(|frame| scene.bob.let_in(frame));
    ada.ids().iter().chain(&eve.ids()).for_each(|id| drop(scene.once(id, "delivered")));
}

#[test]
fn without_a_hook_a_reply_proves_the_inbox() {
    let mut scene = Scene::new();
    let first = scene.send("one");
    scene.bob.frame();
    scene.once(&first, "offered");
    // Nothing has proved that it was seen: the next certain route gives it again, marked.
    let again = scene.bob.session.check();
    assert_eq!((&again[0]["id"], &again[0]["repeat"]), (&json!(first), &json!(true)));
    let second = scene.send("two");
    scene.bob.frame();
    scene.once(&second, "offered");
    scene.bob.session.tool("send_message", json!({"targetPeerId": "ada", "message": "yes", "replyTo": second}));
    scene.once(&second, "delivered");
    scene.once_reason_has("confirmed 2");
    // Trusted from now on.
    let third = scene.send("three");
    scene.bob.frame();
    scene.once(&third, "offered");
    assert_eq!(scene.bob.session.check(), [] as [Value; 0]);
}

#[test]
fn a_long_message_is_announced_and_read_with_check_messages() {
    let mut scene = Scene::new();
    let text = "long ".repeat(4_000);
    let id = scene.send(&text);
    let frame = scene.bob.frame();
    assert!(frame.content.len() < 2_000 && frame.content.contains("check_messages"), "{}", frame.content);
    scene.bob.let_in(&frame);
    scene.once(&id, "offered");
    let read = scene.bob.session.check();
    assert_eq!(read[0]["text"], text);
    scene.once(&id, "delivered");
}

#[test]
fn a_call_that_waits_is_given_the_message_as_its_result() {
    let mut scene = Scene::new();
    let call = scene.bob.session.ask("tools/call", json!({"name": "check_messages", "arguments": {"waitSeconds": 60}}));
    scene.once_reason_has("a call of its tools waits");
    let id = scene.send("while you wait");
    let answer = scene.bob.session.answer(call);
    assert_eq!(answer["result"]["structuredContent"]["messages"][0]["id"], id);
    scene.once(&id, "delivered");
    assert_eq!(scene.bob.frames().len(), 0);
}

#[test]
fn tool_results_carry_nothing_where_the_inbox_is_open() {
    let mut scene = Scene::new();
    scene.bob.prompt(json!({}));
    let id = scene.send("one");
    let frame = scene.bob.frame();
    scene.once(&id, "offered");
    scene.send("two");
    let list = scene.bob.session.tool("list_peers", json!({"scope": "machine"}));
    assert_eq!(list.get("incomingMessages"), None);
    scene.bob.let_in(&frame);
    scene.bob.frame();
}
