//! Pushes messages into the session as `notifications/claude/channel`.
//!
//! Messages are pushed one after the other, in the broker's order, and only once the client is initialized. After a reconnect the
//! broker gives again what was not acknowledged yet; the channel pushes nothing twice unless the broker marks it as a repeat. The
//! client never confirms a push, so a push makes a message *offered* and no more.

use super::{Initialized, acknowledge::Acknowledger, locked, log, stdio::Writer};
use crate::{
    agents::shown::Shown,
    wire::{Inbound, Outcome, Route, text},
};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

/// How many pushed messages are remembered: more than a broker leaves unacknowledged.
const REMEMBERED: usize = 4_096;

/// The channel of one session.
pub struct Channel {
    out: Writer,
    acknowledger: Arc<Acknowledger>,
    initialized: Initialized,
    /// The sequence numbers of pushed messages.
    pushed: Mutex<BTreeSet<i64>>,
}

impl Channel {
    /// A channel that writes to `out`.
    pub fn new(out: Writer, acknowledger: Arc<Acknowledger>, initialized: Initialized) -> Self {
        Self { out, acknowledger, initialized, pushed: Mutex::default() }
    }

    /// Pushes one message.
    pub async fn push(&self, message: Inbound) {
        self.initialized.wait().await;
        if !message.repeat && locked(&self.pushed).contains(&message.id.seq()) {
            return; // its acknowledgement is on the way
        }
        let shown = Shown::brief(message);
        if let Err(error) = self.out.write(&notification(&shown)).await {
            return log!("pushing a message: {error}"); // stdin will end, too; the message waits for the session's return
        }
        let mut pushed = locked(&self.pushed);
        pushed.insert(shown.message.id.seq());
        if pushed.len() > REMEMBERED {
            pushed.pop_first();
        }
        self.acknowledger.acknowledge(Route::Channel, [shown.became(Outcome::Offered)]);
    }
}

fn notification(shown: &Shown) -> Value {
    let message = &shown.message;
    let mut meta = Map::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            meta.insert(key.to_owned(), text::attribute(value).into());
        }
    };
    put("from_id", message.from.id.as_str());
    put("from_name", &message.from.name);
    put("from_cwd", &message.from.cwd);
    put("from_summary", &message.from.summary);
    put("message_id", &message.id.to_string());
    put("sent_at", &message.sent_at.to_string());
    put("reply_to", &message.reply_to.as_ref().map(ToString::to_string).unwrap_or_default());
    put("repeat", if message.repeat { "true" } else { "" });
    let mut content = text::channel_content(&message.text);
    if let Some(note) = shown.note() {
        content = format!("{content}\n[{note}]");
    }
    json!({"jsonrpc": "2.0", "method": "notifications/claude/channel", "params": {"content": content, "meta": meta}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::shown::tests::message;

    #[tokio::test]
    async fn nothing_is_pushed_twice() {
        let (near, far) = tokio::io::duplex(4096);
        let initialized = Initialized::default();
        initialized.set(()).expect("set once");
        let channel = Channel::new(Writer::new(near), Arc::new(Acknowledger::default()), initialized);
        for seq in [1, 2, 2, 3] {
            channel.push(message(seq, "hello")).await;
        }
        drop(channel);
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(far));
        for expected in ["m1-abc", "m2-abc", "m3-abc"] {
            let line: Value = serde_json::from_str(&lines.next_line().await.expect("read").expect("a line")).expect("JSON");
            assert_eq!(line["params"]["meta"]["message_id"], expected);
        }
    }
}
