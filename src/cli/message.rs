//! `message`: shows a message, its state and its conversation.

use super::{
    candidates,
    rows::{self, tone},
};
use crate::{
    client::{Client, with_query},
    console::{Failure, Look, Out, Tone},
    wire::{
        HistoryEntry, HistoryPage, MessageRef, MessageState,
        text::{printable, printable_line},
    },
};
use serde::Serialize;
use serde_json::json;

/// Most messages of a conversation that are shown, the newest ones; `history --thread` shows more.
const SHOWN: usize = 50;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The message: its id, as `send` and `history` show it, or its number alone (m1042)
    #[arg(add = candidates::messages())]
    pub id: MessageRef,
}

/// What `message` prints.
#[derive(Debug, Serialize)]
struct Answer {
    #[serde(flatten)]
    entry: HistoryEntry,
    /// The messages of its conversation, oldest first; empty if it is the only one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    thread: Vec<HistoryEntry>,
}

pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    let entry: HistoryEntry = broker.get(&format!("/v1/messages/{}", args.id), None).await?;
    let id = entry.receipt.message_id.clone();
    let path = with_query("/v1/history", &json!({ "thread": id, "limit": SHOWN }));
    let HistoryPage { messages: mut thread, next, .. } = broker.get(&path, None).await?;
    thread.reverse();
    if thread.len() == 1 && next.is_none() {
        thread.clear();
    }
    out.answer(&Answer { entry, thread }, render)?;
    if next.is_some() {
        out.aside(&format!("The conversation has more messages: claude-peers history --thread {id} --limit 1000"));
    }
    Ok(())
}

fn render(answer: &Answer, look: Look) -> String {
    let mut text = alone(&answer.entry, look);
    if !answer.thread.is_empty() {
        text += &format!("\nIts conversation:\n{}", rows::table(&answer.thread, rows::SHOWN, look));
    }
    text
}

/// The message and what is known of it.
fn alone(entry: &HistoryEntry, look: Look) -> String {
    let receipt = &entry.receipt;
    let party = |name: &str, id: &str| if name == id { id.to_owned() } else { format!("{} ({id})", printable_line(name)) };
    let state = look.paint(tone(receipt.state), receipt.state.as_str());
    let route = receipt.route.map(|route| format!(", by {route}")).unwrap_or_default();
    let mut facts = vec![
        ("message", receipt.message_id.to_string()),
        ("from", party(&entry.from_name, receipt.from.as_str())),
        ("to", party(&receipt.to_name, receipt.to.as_str())),
        ("state", state + &route),
        ("sent", look.time(receipt.sent_at)),
    ];
    let held = receipt.held.as_ref().map(|held| held.at);
    let times = [
        ("forwarded", receipt.forwarded_at),
        ("offered", receipt.offered_at),
        ("held", held),
        ("delivered", receipt.delivered_at),
        ("expired", receipt.expired_at),
    ];
    facts.extend(times.into_iter().filter_map(|(name, time)| Some((name, look.time(time?)))));
    if !matches!(receipt.state, MessageState::Delivered | MessageState::Expired) {
        facts.push(("expires", look.time(receipt.expires_at)));
    }
    facts.extend(receipt.reply_to.as_ref().map(|id| ("answers", id.to_string())));
    facts.extend(
        receipt.warning.as_ref().map(|warning| ("warning", look.paint(Tone::Warn, printable_line(&look.sentence(warning))))),
    );
    format!("{}\n{}\n", look.facts(&facts), printable(&entry.text))
}
