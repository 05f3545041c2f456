//! Messages that arrive through the inbox of a session's client.

mod answers;
mod frames;
mod held;
mod lost;
mod who;

use crate::support::{
    Broker, Session,
    agent::{Agent, Frame},
    eventually, folder,
};
use serde_json::{Value, json};

/// The start flags of a session that bypasses permission prompts.
const BYPASS: &[&str] = &["--dangerously-skip-permissions"];

/// A broker, a session with an inbox (bob), and one that writes to it (ada).
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

    /// Like [`Scene::new`], with these start flags and this environment for the session with the inbox.
    pub fn with(flags: &[&str], env: &[(&str, &str)]) -> Self {
        let (broker, place) = (Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]), folder());
        let bob = Agent::with(&broker, &directory(&place, "bob"), "s-1", flags, env);
        let ada = Session::pulling(&broker, &directory(&place, "ada"), "s-2");
        Self { broker, place, bob, ada }
    }

    /// A scene whose broker already knows the session's hook.
    pub fn hooked() -> Self {
        let scene = Self::new();
        scene.bob.prompt(json!({}));
        scene
    }

    /// Sends a message to the session with the inbox and returns its id.
    pub fn send(&mut self, text: &str) -> String {
        self.ada.send("bob", text)["messageId"].as_str().unwrap().to_owned()
    }

    /// Waits until a message is in this state and returns it.
    pub fn once(&self, id: &str, state: &str) -> Value {
        eventually(&format!("{id} is {state}"), || {
            Some(self.broker.message(&json!(id))).filter(|message| message["state"] == state)
        })
    }

    /// Sends a message, waits until it is written into the inbox, and returns its id and frame.
    pub fn offered(&mut self, text: &str) -> (String, Frame) {
        let id = self.send(text);
        let frame = self.bob.frame();
        assert_eq!(frame.ids(), [id.as_str()]);
        self.once(&id, "offered");
        (id, frame)
    }

    /// Lets a frame in and waits until its messages are delivered.
    pub fn deliver(&self, frame: &Frame) {
        self.bob.let_in(frame);
        frame.ids().iter().for_each(|id| drop(self.once(id, "delivered")));
    }

    /// The list entry of the session with the inbox.
    pub fn peer(&self) -> Value {
        self.broker.peers().into_iter().find(|peer| peer["name"] == "bob").unwrap()
    }

    /// Waits until the reason for its route contains these words.
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
fn letting_a_frame_in_delivers_its_message() {
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
fn waiting_messages_come_as_one_frame_per_sender() {
    let mut scene = Scene::hooked();
    let (_, frame) = scene.offered("one");
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
    [&ada, &eve].iter().for_each(|frame| scene.deliver(frame));
}

#[test]
fn reply_proves_the_inbox_without_a_hook() {
    let mut scene = Scene::new();
    let (first, _) = scene.offered("one");
    // Nothing has proved that it was seen, so the next certain route repeats it with a mark.
    let again = scene.bob.session.check();
    assert_eq!((&again[0]["id"], &again[0]["repeat"]), (&json!(first), &json!(true)));
    let (second, _) = scene.offered("two");
    scene.bob.session.tool("send_message", json!({"targetPeerId": "ada", "message": "yes", "replyTo": second}));
    scene.once(&second, "delivered");
    scene.once_reason_has("confirmed 2");
    // The inbox is trusted from now on.
    scene.offered("three");
    assert_eq!(scene.bob.session.check(), [] as [Value; 0]);
}

#[test]
fn long_message_is_announced_in_the_inbox() {
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
fn waiting_call_gets_the_message() {
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
fn tool_results_carry_nothing_with_an_inbox() {
    let mut scene = Scene::hooked();
    let (_, frame) = scene.offered("one");
    scene.send("two");
    let list = scene.bob.session.list();
    assert_eq!(list.get("incomingMessages"), None);
    scene.bob.let_in(&frame);
    scene.bob.frame();
}
