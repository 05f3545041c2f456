//! What the sessions were shown and what their senders heard. A [`View`] panics at the first message that is another session's,
//! shown twice without a mark, or out of order.

use crate::support::agent::Frame;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// The recipient in the text of a broadcast.
pub const EVERYONE: &str = "everyone";

/// The text of a sender's message number `number`. [`View`] reads it.
pub fn text(from: &str, to: &str, number: u64) -> String {
    format!("{from} to {to} number {number}")
}

/// The text of a message whose call is cancelled. Its sender does not know when it is accepted, so later ones may overtake it.
pub fn cancelled_text(from: &str, to: &str, number: u64) -> String {
    format!("{from} to {to} cancelled {number}")
}

/// A message as a session saw it.
#[derive(Debug, Clone)]
pub struct Shown {
    pub id: String,
    pub from: String,
    text: String,
    repeat: bool,
}

impl Shown {
    fn in_result(message: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self {
            id: text(&message["id"]),
            from: text(&message["from"]["id"]),
            text: text(&message["text"]),
            repeat: message["repeat"] == true,
        }
    }

    fn pushed(push: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self {
            id: text(&push["meta"]["message_id"]),
            from: text(&push["meta"]["from_id"]),
            text: text(&push["content"]),
            repeat: push["meta"]["repeat"] == "true",
        }
    }

    /// The place in the order in which the broker accepted all messages.
    fn place(&self) -> u64 {
        self.id[1..].split('-').next().unwrap().parse().unwrap()
    }
}

/// The messages in a frame: for each its text, its id, its sender.
fn in_frame(frame: &Frame) -> Vec<Shown> {
    let (mut all, mut text, mut id, mut repeat) = (Vec::new(), String::new(), String::new(), false);
    for line in frame.content.lines() {
        if let Some(quoted) = line.strip_prefix("> ") {
            text = quoted.to_owned();
        } else if let Some(rest) = line.strip_prefix("id ") {
            (id, repeat) = (rest.split(' ').next().unwrap().to_owned(), rest.contains("possible repeat"));
        } else if let Some(rest) = line.strip_prefix("from peer ") {
            let from = rest.split(' ').next().unwrap().to_owned();
            all.push(Shown { id: id.clone(), from, text: text.clone(), repeat });
        }
    }
    assert_eq!(all.len(), frame.ids().len(), "a frame that this test cannot read: {}", frame.content);
    all
}

/// Whose messages the recipient's user decides about. They come in the order in which the user lets them in.
#[derive(Default)]
pub enum Holds {
    #[default]
    Nobody,
    This(String),
    /// Of everyone but the user, who sends as `cli`.
    Everyone,
}

/// All messages that one session saw, in order.
#[derive(Default)]
pub struct View {
    recipient: String,
    pub holds: Holds,
    seen: HashSet<String>,
    texts: HashSet<String>,
    newest: HashMap<String, u64>,
    pub last: Option<Shown>,
    pub repeats: u64,
}

impl View {
    /// The recipient becomes known with its first answer.
    pub fn is_of(&mut self, recipient: &str) {
        recipient.clone_into(&mut self.recipient);
    }

    /// How many messages it was shown.
    pub fn count(&self) -> usize {
        self.seen.len()
    }

    pub fn has(&self, text: &str) -> bool {
        self.texts.contains(text)
    }

    /// Reads a line of the server's output.
    pub fn line(&mut self, line: &Value) {
        if line["method"] == "notifications/claude/channel" {
            self.push(&line["params"]);
        } else if line.get("id").is_some() {
            self.result(&line["result"]);
        }
    }

    pub fn push(&mut self, push: &Value) {
        self.see(Shown::pushed(push));
    }

    pub fn frame(&mut self, frame: &Frame) {
        in_frame(frame).into_iter().for_each(|shown| self.see(shown));
    }

    fn result(&mut self, result: &Value) {
        let content = &result["structuredContent"];
        let lists = [&content["incomingMessages"], &content["messages"]].into_iter().filter_map(Value::as_array).flatten();
        let mut all: Vec<Shown> = lists.map(Shown::in_result).collect();
        if let Some(answer) = content.get("answer") {
            // The answer stands beside the others, so the result alone does not tell their order.
            all.push(Shown::in_result(answer));
            all.sort_by_key(Shown::place);
        }
        all.into_iter().for_each(|shown| self.see(shown));
    }

    fn see(&mut self, shown: Shown) {
        let me = &self.recipient;
        let is_mine = [me.as_str(), EVERYONE].iter().any(|to| shown.text.contains(&format!(" to {to} ")));
        assert!(is_mine, "{me} was shown another's mail: {shown:?}");
        if !self.seen.insert(shown.id.clone()) {
            assert!(shown.repeat, "shown to {me} again without a mark: {shown:?}");
            self.repeats += 1;
            return;
        }
        self.texts.insert(shown.text.clone());
        if !self.may_be_held(&shown.from) && shown.text.contains(" number ") {
            self.check_order(&shown);
        }
        self.last = Some(shown);
    }

    fn may_be_held(&self, from: &str) -> bool {
        match &self.holds {
            Holds::Nobody => false,
            Holds::This(sender) => from == sender,
            Holds::Everyone => from != "cli",
        }
    }

    fn check_order(&mut self, shown: &Shown) {
        let number: u64 = shown.text.rsplit(' ').next().unwrap().parse().unwrap();
        let before = self.newest.insert(shown.from.clone(), number).unwrap_or_default();
        assert!(before < number, "{} was shown {shown:?} after number {before} of the same sender", self.recipient);
    }
}

/// One sender's view of its messages.
#[derive(Default)]
pub struct Sent {
    /// Accepted messages: recipient and text.
    pub accepted: Vec<(String, String)>,
    /// The texts of messages without an answer, or with an error. They may have been accepted or not.
    pub unsure: Vec<String>,
}

impl Sent {
    /// Books the answer to a send or a broadcast; none if its sender was killed first.
    pub fn book(&mut self, text: String, result: Option<&Value>) {
        let Some(content) = result.map(|result| &result["structuredContent"]) else { return self.unsure.push(text) };
        let one = std::slice::from_ref(content);
        let receipts = content["receipts"].as_array().map_or(one, Vec::as_slice);
        let accepted = receipts.iter().filter(|receipt| receipt["success"] == true);
        let before = self.accepted.len();
        self.accepted.extend(accepted.map(|receipt| (receipt["to"]["id"].as_str().unwrap().to_owned(), text.clone())));
        if self.accepted.len() == before {
            self.unsure.push(text);
        }
    }
}
