//! The promises about a message: kept, shown once, in order, said truly, and refused only with a reason.

mod channel;
mod commits;
mod faults;
mod limits;
mod receipts;
mod results;
mod texts;

use crate::support::{Broker, Session, eventually, folder};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};
use tempfile::TempDir;

/// A broker, and directories for its sessions.
struct Scene {
    broker: Broker,
    place: TempDir,
}

impl Scene {
    fn new() -> Self {
        Self::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")])
    }

    fn with(settings: &[(&str, &str)]) -> Self {
        Self { broker: Broker::with(settings), place: folder() }
    }

    fn directory(&self, name: &str) -> PathBuf {
        let directory = self.place.path().join(name);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    /// A session named `name` that is registered. Its mail comes only when it asks.
    fn pulling(&self, name: &str) -> Session {
        let mut session = self.resumed(name);
        session.id();
        session
    }

    /// The same, which has not called a tool yet: its mail has not been shown.
    fn resumed(&self, name: &str) -> Session {
        Session::pulling(&self.broker, &self.directory(name), name)
    }

    /// A session named `name` that is registered, with a channel.
    fn pushed(&self, name: &str) -> Session {
        let mut session = Session::start(&self.broker, &self.directory(name), name);
        session.id();
        session
    }

    fn assert_state(&self, id: &Value, state: &str, route: &str) {
        let message = self.broker.message(id);
        assert_eq!((&message["state"], &message["route"]), (&json!(state), &json!(route)));
    }
}

/// Replies to a message that came through the channel: it works.
fn prove_channel(scene: &Scene, sender: &mut Session, recipient: &mut Session, name: &str) {
    let id = sender.send(name, "can you hear me?")["messageId"].clone();
    assert_eq!(recipient.pushed()["meta"]["message_id"], id);
    let from = scene.broker.message(&id)["from"].clone();
    recipient.tool("send_message", json!({"targetPeerId": from, "message": "yes", "replyTo": id}));
    scene.assert_state(&id, "delivered", "reply");
    sender.check();
}

/// Calls a tool until its result carries messages beside what was asked for, and gives these.
fn carried(session: &mut Session, tool: &str, arguments: &Value) -> Vec<Value> {
    eventually(&format!("{tool} carries a message"), || {
        session.tool(tool, arguments.clone()).get("incomingMessages").map(|messages| messages.as_array().unwrap().clone())
    })
}

/// Asserts that no tool shows the session anything any more.
fn assert_nothing_more(session: &mut Session) {
    for (tool, arguments) in [("list_peers", json!({"scope": "machine"})), ("set_summary", json!({"summary": "quiet"}))] {
        let result = session.tool(tool, arguments);
        assert!(result.get("incomingMessages").is_none(), "{result}");
    }
    assert_eq!(session.check(), [] as [Value; 0]);
    assert_eq!(session.pushes_so_far(), [] as [Value; 0]);
}

/// The messages that the result of `check_messages` holds.
fn messages_of(result: &Value) -> Vec<Value> {
    result["structuredContent"]["messages"].as_array().unwrap().clone()
}

fn ids(messages: &[Value]) -> Vec<Value> {
    messages.iter().map(|message| message["id"].clone()).collect()
}
