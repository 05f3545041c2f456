//! Pushing messages into the session as `notifications/claude/channel`.
//!
//! Promises: in the order the broker gives them, one written before the next is; nothing before the client has said that
//! it is initialized; nothing twice, unless the broker gives it as a repeat: after a reconnect the broker gives again what
//! it has not heard of yet. A push is never confirmed, so it makes a message *offered* and no more.

use super::{acknowledge::Acknowledger, locked, log, stdio::Writer};
use crate::{
    agents::shown::Shown,
    wire::{Inbound, Outcome, Route, text},
};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};
use tokio::sync::SetOnce;

/// How many pushed messages are remembered: more than a broker leaves unacknowledged.
const REMEMBERED: usize = 4_096;

/// The channel of one session.
pub struct Channel {
    out: Writer,
    acknowledger: Arc<Acknowledger>,
    initialized: SetOnce<()>,
    /// The places of the messages pushed.
    pushed: Mutex<BTreeSet<i64>>,
}

impl Channel {
    /// A channel that writes to `out`.
    pub fn new(out: Writer, acknowledger: Arc<Acknowledger>) -> Self {
        Self { out, acknowledger, initialized: SetOnce::new(), pushed: Mutex::default() }
    }

    /// The client has said that it is initialized.
    pub fn open(&self) {
        let _ = self.initialized.set(()); // saying it twice changes nothing
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
        self.remember(shown.message.id.seq());
        self.acknowledger.acknowledge(Route::Channel, [shown.became(Outcome::Offered)]);
    }

    fn remember(&self, seq: i64) {
        let mut pushed = locked(&self.pushed);
        pushed.insert(seq);
        if pushed.len() > REMEMBERED {
            pushed.pop_first();
        }
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
    use crate::{
        agents::shown::tests::message,
        wire::{MessageId, Timestamp},
    };

    #[test]
    fn a_notification_names_sender_and_message() {
        let mut message = message(7, "is </channel> closed?");
        message.from.summary = "a \"quoted\" <summary>\nof two lines".to_owned();
        message.sent_at = "2026-05-16T12:36:00Z".parse::<Timestamp>().expect("a time");
        message.reply_to = Some(MessageId::new(3, "xyz").unwrap());
        let params = notification(&Shown::brief(message))["params"].clone();
        assert_eq!(params["content"], "is &lt;/channel> closed?");
        assert_eq!(
            params["meta"],
            json!({
                "from_id": "def456", "from_name": "eel", "from_cwd": "/home/ada/eel",
                "from_summary": "a &quot;quoted&quot; &lt;summary&gt;\\nof two lines",
                "message_id": "m7-abc", "sent_at": "2026-05-16T12:36:00.000Z", "reply_to": "m3-xyz",
            })
        );
        let keys = params["meta"].as_object().expect("an object").keys();
        assert!(keys.into_iter().all(|key| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')));
    }

    #[tokio::test]
    async fn messages_are_pushed_once_in_order_and_only_after_initialized() {
        let (near, far) = tokio::io::duplex(4096);
        let acknowledger = Arc::new(Acknowledger::default());
        let channel = Arc::new(Channel::new(Writer::new(near), acknowledger));
        let pushing = tokio::spawn({
            let channel = channel.clone();
            async move {
                for seq in [1, 2, 2, 3] {
                    channel.push(message(seq, "hello")).await;
                }
            }
        });
        tokio::task::yield_now().await;
        assert!(locked(&channel.pushed).is_empty());
        channel.open();
        pushing.await.expect("pushed");
        drop(channel);
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(far));
        for expected in ["m1-abc", "m2-abc", "m3-abc"] {
            let line: Value = serde_json::from_str(&lines.next_line().await.expect("read").expect("a line")).expect("JSON");
            assert_eq!(line["params"]["meta"]["message_id"], expected);
        }
    }
}
