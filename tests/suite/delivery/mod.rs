//! Messages are kept, shown once and in order, reported truthfully, and refused only with a reason.

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

/// A broker and directories for its sessions.
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

    /// A registered session named `name` without a channel.
    fn pulling(&self, name: &str) -> Session {
        let mut session = self.resumed(name);
        session.id();
        session
    }

    /// Such a session that has not called a tool yet, so none of its mail was shown.
    fn resumed(&self, name: &str) -> Session {
        Session::pulling(&self.broker, &self.directory(name), name)
    }

    /// A registered session named `name` with a channel.
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

/// A call of each tool but `check_messages`.
fn other_tools() -> [(&'static str, Value); 3] {
    [
        ("list_peers", json!({"scope": "machine"})),
        ("set_summary", json!({"summary": "busy"})),
        ("send_message", json!({"targetPeerId": "asker", "message": "something else"})),
    ]
}

/// Proves the recipient's channel with a reply to a push.
fn prove_channel(scene: &Scene, sender: &mut Session, recipient: &mut Session, name: &str) {
    let id = sender.send(name, "can you hear me?")["messageId"].clone();
    assert_eq!(recipient.pushed()["meta"]["message_id"], id);
    let from = scene.broker.message(&id)["from"].clone();
    recipient.tool("send_message", json!({"targetPeerId": from, "message": "yes", "replyTo": id}));
    scene.assert_state(&id, "delivered", "reply");
    sender.check();
}

/// Calls a tool until its result carries messages, and returns them.
fn carried(session: &mut Session, tool: &str, arguments: &Value) -> Vec<Value> {
    eventually(&format!("{tool} carries a message"), || {
        session.tool(tool, arguments.clone()).get("incomingMessages").map(|messages| messages.as_array().unwrap().clone())
    })
}

/// Asserts that neither tools nor pushes show the session any more mail.
fn assert_nothing_more(session: &mut Session) {
    for (tool, arguments) in [("list_peers", json!({"scope": "machine"})), ("set_summary", json!({"summary": "quiet"}))] {
        let result = session.tool(tool, arguments);
        assert!(result.get("incomingMessages").is_none(), "{result}");
    }
    assert_eq!(session.check(), [] as [Value; 0]);
    assert_eq!(session.pushes_so_far(), [] as [Value; 0]);
}

/// The messages in a result of `check_messages`.
fn messages_of(result: &Value) -> Vec<Value> {
    result["structuredContent"]["messages"].as_array().unwrap().clone()
}

fn ids(messages: &[Value]) -> Vec<Value> {
    messages.iter().map(|message| message["id"].clone()).collect()
}
