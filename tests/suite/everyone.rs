//! One message to everyone in a scope: each peer except the sender gets a copy, with its own receipt.

use crate::support::{Broker, Session, folder, git};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::PathBuf};
use tempfile::TempDir;

struct Place {
    broker: Broker,
    folder: TempDir,
}

impl Place {
    fn with(settings: &[(&str, &str)]) -> Self {
        Self { broker: Broker::with(settings), folder: folder() }
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// A registered session in this directory.
    fn session(&self, directory: &str, id: &str) -> Session {
        let mut session = Session::pulling(&self.broker, &self.path(directory), id);
        session.id();
        session
    }
}

fn names<'a>(copies: &'a Value, name: &str) -> BTreeSet<&'a str> {
    copies.as_array().unwrap().iter().map(|copy| copy.pointer(name).unwrap().as_str().unwrap()).collect()
}

fn texts(session: &mut Session) -> Vec<Value> {
    session.check().iter().map(|message| message["text"].clone()).collect()
}

#[test]
fn broadcast_reaches_its_scope_but_never_the_sender() {
    let place = Place::with(&[]);
    git::repository(&place.path("engine"));
    let mut asker = place.session("engine", "a");
    let mut beside = place.session("engine", "b");
    let mut below = place.session("engine/src", "c");
    let mut elsewhere = place.session("other", "d");
    let mut gone = place.session("engine", "e");
    assert_eq!(gone.peers().len(), 4);
    gone.close();
    let everyone = |session: &mut Session, to: &str| session.send(to, &format!("to {to}"));
    for (scope, reached) in [
        ("@directory", vec!["engine-2"]),
        ("@repo", vec!["engine-2", "engine-3"]),
        (" @machine ", vec!["engine-2", "engine-3", "other"]),
    ] {
        let sent = everyone(&mut asker, scope);
        assert_eq!((names(&sent["receipts"], "/to/name"), &sent["refused"]), (reached.into_iter().collect(), &json!([])));
        assert_eq!(sent["success"], true);
        for receipt in sent["receipts"].as_array().unwrap() {
            assert_eq!((&receipt["state"], receipt["warning"].is_string()), (&json!("queued"), true), "{receipt}");
            assert_eq!(place.broker.message(&receipt["messageId"])["to"], receipt["to"]["id"]);
        }
    }
    assert_eq!(texts(&mut beside), ["to @directory", "to @repo", "to  @machine "]);
    assert_eq!(texts(&mut below), ["to @repo", "to  @machine "]);
    assert_eq!(texts(&mut elsewhere), ["to  @machine "]);
    assert!(asker.check().is_empty());

    let said = asker.tool_error("send_message", json!({"to": "@galaxy", "message": "hello"}));
    assert!(said.contains("scope \"galaxy\" is unknown"), "{said}");
    let said = asker.tool_error("send_message", json!({"to": "@repo", "message": "hello", "replyTo": "m1-abcdef"}));
    assert!(said.contains("an answer goes to one peer"), "{said}");
}

#[test]
fn broadcast_to_nobody_is_refused() {
    let place = Place::with(&[]);
    let mut alone = place.session("here", "a");
    let result = alone.call("send_message", json!({"targetPeerId": "@machine", "message": "anybody?"}));
    assert_eq!(result["structuredContent"], json!({"success": true, "receipts": [], "refused": []}));
    let said = result["content"][0]["text"].as_str().unwrap();
    assert!(said.contains("no other peers in @machine") && said.contains("nothing was sent"), "{said}");
    assert_eq!(place.broker.stored().0, 0);
}

#[test]
fn one_refused_recipient_does_not_stop_others() {
    let place = Place::with(&[("CLAUDE_PEERS_WAITING_LIMIT", "2"), ("CLAUDE_PEERS_REPEAT_LIMIT", "1")]);
    let mut asker = place.session("asker", "a");
    let (_full, _told, mut free) = (place.session("full", "b"), place.session("told", "c"), place.session("free", "d"));
    asker.send("full", "one");
    asker.send("full", "two");
    asker.send("told", "to all");
    let result = asker.call("send_message", json!({"targetPeerId": "@machine", "message": "to all"}));
    let sent = &result["structuredContent"];
    assert_eq!(sent["success"], false);
    assert_eq!(names(&sent["receipts"], "/to/name"), ["free"].into());
    let mut why: Vec<_> =
        sent["refused"].as_array().unwrap().iter().map(|copy| (&copy["to"]["name"], &copy["error"]["code"])).collect();
    why.sort_by_key(|(name, _)| name.as_str());
    assert_eq!(why, [(&json!("full"), &json!("mailbox_full")), (&json!("told"), &json!("repeat_limited"))]);
    let said = result["content"][0]["text"].as_str().unwrap();
    assert!(said.contains("Not sent to full") && said.contains("Not sent to told"), "{said}");
    assert_eq!(texts(&mut free), ["to all"]);
    assert_eq!(place.broker.stored().0, 4);
}

#[test]
fn broadcast_over_the_rate_sends_no_copy() {
    let place = Place::with(&[("CLAUDE_PEERS_RATE_LIMIT", "1"), ("CLAUDE_PEERS_RATE_BURST", "3")]);
    let mut asker = place.session("asker", "a");
    let _others: Vec<_> = ["b", "c", "d"].map(|id| place.session("crowd", id)).into_iter().collect();
    asker.send("crowd", "only to you");
    let call = json!({"targetPeerId": "@machine", "message": "to all"});
    let said = asker.tool_error("send_message", call.clone());
    assert!(said.contains("more than 1 messages a minute") && said.contains("send it again"), "{said}");
    assert_eq!(place.broker.stored().0, 1, "none of it is stored");

    let _fourth = place.session("crowd", "e");
    let said = asker.tool_error("send_message", call);
    assert!(said.contains("4 messages at once") && said.contains("narrower scope"), "{said}");
    assert_eq!(place.broker.stored().0, 1);
}

#[test]
fn broadcast_with_its_key_is_not_repeated() {
    let place = Place::with(&[]);
    let (mut one, two) = (place.session("one", "a"), place.session("two", "b"));
    let send = |key: &str, text: &str| place.broker.http().post("/v1/send", &json!({"to": "@machine", "text": text, "key": key}));
    let first = send("key-1", "hello").json();
    assert_eq!(names(&first["receipts"], "/toName"), ["one", "two"].into());
    two.close();
    let mut third = place.session("third", "c");
    let again = send("key-1", "hello").json();
    let ids = |sent: &Value| names(&sent["receipts"], "/messageId").into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    assert!(ids(&again).is_superset(&ids(&first)), "{again}");
    assert_eq!(names(&again["receipts"], "/toName"), ["one", "third", "two"].into(), "who came meanwhile gets it, too");
    assert_eq!(send("key-1", "another text").code(), "idempotency_conflict");
    assert_eq!(ids(&send("key-1", "hello").json()), ids(&again));
    assert_eq!(texts(&mut one), ["hello"]);
    assert_eq!(texts(&mut third), ["hello"]);
    assert_eq!(place.broker.stored().0, 3);
}

#[test]
fn command_line_broadcasts_from_its_directory() {
    let place = Place::with(&[("CLAUDE_PEERS_WAITING_LIMIT", "2")]);
    let (mut here, mut there) = (place.session("here", "a"), place.session("there", "b"));
    let run =
        |to: &str, text: &str| place.broker.cli(&["send", to, text, "--json"]).current_dir(place.path("here")).output().unwrap();
    for (to, names_of) in [("@directory", vec!["here"]), ("@machine", vec!["here", "there"])] {
        let output = run(to, "hello");
        assert!(output.status.success());
        let sent: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(names(&sent["receipts"], "/toName"), names_of.into_iter().collect());
    }
    let output = place.broker.cli(&["send", "@machine", "more"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "not everybody got it: {said}");
    assert!(said.contains("to there") && said.contains("refused") && said.contains("to here"), "{said}");
    assert_eq!((texts(&mut here).len(), texts(&mut there).len()), (2, 2));
    assert_eq!(run("@galaxy", "hello").status.code(), Some(2));
}
