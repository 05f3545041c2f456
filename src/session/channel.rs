//! Pushes messages into the session as `notifications/claude/channel`.
//!
//! Messages are pushed one by one, in the broker's order. After a reconnect the broker sends unacknowledged messages again. The
//! channel pushes a message twice only if the broker marks it as a repeat. The client never confirms a push, so a pushed message
//! is only *offered*.

use super::{
    acknowledge::{Acknowledger, Handover},
    log,
    stdio::Writer,
};
use crate::{
    agents::shown::Shown,
    wire::{Inbound, Outcome, Route, text},
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// How many pushed messages are remembered: more than a broker leaves unacknowledged.
const REMEMBERED: usize = 4_096;

pub struct Channel {
    out: Writer,
    acknowledger: Arc<Acknowledger>,
    /// The sequence numbers of pushed messages.
    pushed: BTreeSet<i64>,
}

impl Channel {
    pub fn new(out: Writer, acknowledger: Arc<Acknowledger>) -> Self {
        Self { out, acknowledger, pushed: BTreeSet::new() }
    }

    pub async fn push(&mut self, message: Inbound) {
        if !message.repeat && self.pushed.contains(&message.id.seq()) {
            return; // its acknowledgement is on the way
        }
        let shown = Shown::brief(message);
        if let Err(error) = self.out.write_line(format!("{}\n", notification(&shown)).as_bytes()).await {
            return log!("pushing a message: {error}"); // stdin ends soon, too; the message waits until the session returns
        }
        self.pushed.insert(shown.message.id.seq());
        if self.pushed.len() > REMEMBERED {
            self.pushed.pop_first();
        }
        let (acknowledger, messages) = (self.acknowledger.clone(), vec![shown.became(Outcome::Offered)]);
        Handover { acknowledger, route: Route::Channel, messages, lease: None }.written();
    }
}

fn notification(shown: &Shown) -> Value {
    let Inbound { id, from, text, sent_at, reply_to, repeat } = &shown.message;
    let meta: Map<String, Value> = [
        ("from_id", from.id.to_string()),
        ("from_name", from.name.clone()),
        ("from_cwd", from.cwd.clone()),
        ("from_container", from.container.clone().unwrap_or_default()),
        ("from_summary", from.summary.clone()),
        ("message_id", id.to_string()),
        ("sent_at", sent_at.to_string()),
        ("reply_to", reply_to.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("repeat", if *repeat { "true".to_owned() } else { String::new() }),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| (key.to_owned(), text::attribute(&value).into()))
    .collect();
    let mut content = text::channel_content(text);
    if let Some(note) = shown.note() {
        content = format!("{content}\n[{note}]");
    }
    json!({"jsonrpc": "2.0", "method": "notifications/claude/channel", "params": {"content": content, "meta": meta}})
}
