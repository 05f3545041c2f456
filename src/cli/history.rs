//! `history`: messages sent and received, newest first.

use super::message;
use crate::{
    client::{Client, with_query},
    console::{Column, Failure, Field, Look, Out, Tone, out::ago},
    platform::clock,
    wire::{HistoryEntry, HistoryPage, MessageRef, PeerRef, Timestamp},
};

/// Most characters of a text in a row; `message ID` shows all of it.
const SHOWN: usize = 200;

const COLUMNS: [Column; 6] = [
    Column::whole("MESSAGE"),
    Column::whole("SENT").droppable(2),
    Column::cut("FROM", 8).droppable(1),
    Column::cut("TO", 8).droppable(1),
    Column::whole("STATE").droppable(3),
    Column::cut("TEXT", 12),
];

/// Which messages.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only messages from or to this peer (an id or a name; `cli` is you)
    #[arg(long)]
    pub peer: Option<PeerRef>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub limit: u32,
    /// Only messages older than this one: an id, or a number alone (m1042)
    #[arg(long, value_name = "ID")]
    pub before: Option<MessageRef>,
}

pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    let (limit, before) = (args.limit.to_string(), args.before.map(|id| id.to_string()));
    let mut query = vec![("limit", limit.as_str())];
    query.extend(args.peer.as_ref().map(|peer| ("peer", peer.as_str())));
    query.extend(before.as_deref().map(|id| ("before", id)));
    let page: HistoryPage = broker.get(&with_query("/v1/history", &query), None).await?;
    out.answer(&page, |page, look| render(page, clock::now(), look))?;
    if let Some(next) = page.next {
        out.aside(&format!("Older ones: claude-peers history --before {next}"));
    }
    Ok(())
}

fn render(page: &HistoryPage, now: Timestamp, look: Look) -> String {
    if page.messages.is_empty() && look.terminal {
        return "No messages.\n".to_owned();
    }
    look.table(&COLUMNS, page.messages.iter().map(|entry| row(entry, now, look)).collect())
}

fn row(entry: &HistoryEntry, now: Timestamp, look: Look) -> Vec<Field> {
    let receipt = &entry.receipt;
    // People see how long ago it was, scripts see the time.
    let sent = if look.terminal { ago(receipt.sent_at, now) } else { receipt.sent_at.to_string() };
    let words = entry.text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut text: String = words.chars().take(SHOWN).collect();
    if text.len() < words.len() {
        text.push('…');
    }
    vec![
        receipt.message_id.to_string().into(),
        Field::new(sent, Tone::Dim),
        entry.from_name.as_str().into(),
        receipt.to_name.as_str().into(),
        Field::new(receipt.state.as_str(), message::tone(receipt.state)),
        text.into(),
    ]
}
