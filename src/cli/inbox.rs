//! `inbox`: the answers that came for the person.

use super::rows;
use crate::{
    client::{Client, with_query},
    console::{Failure, Look, Out, Tone, ago},
    platform::clock,
    wire::{
        Acknowledged, CLI_SENDER, HistoryEntry, HistoryPage, MessageState,
        text::{printable, printable_line},
    },
};
use serde_json::json;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also show those that you have read
    #[arg(long)]
    pub all: bool,
    /// Leave them new
    #[arg(long)]
    pub keep: bool,
    /// At most this many, the newest
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub limit: u32,
}

pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    let state = (!args.all).then_some(MessageState::Queued);
    let query = json!({ "to": CLI_SENDER, "limit": args.limit, "state": state });
    let page: HistoryPage = broker.get(&with_query("/v1/history", &query), None).await?;
    out.answer(&page, |page, look| render(page, args.all, look))?;
    if page.next.is_some() {
        out.aside("There are more: `claude-peers inbox` again, or --limit.");
    }
    // Only what was written out counts as read.
    let unread = page.messages.iter().filter(|entry| entry.receipt.state == MessageState::Queued && !args.keep);
    for entry in unread {
        let read = format!("/v1/messages/{}/read", entry.receipt.message_id);
        let _: Acknowledged = broker.post(&read, None, &json!({})).await?;
    }
    Ok(())
}

/// The oldest first, as one reads letters.
fn render(page: &HistoryPage, all: bool, look: Look) -> String {
    if page.messages.is_empty() && look.terminal {
        return match all {
            true => "No answers yet.\n".to_owned(),
            false => "Nothing new. `claude-peers inbox --all` shows what you have read.\n".to_owned(),
        };
    }
    page.messages.iter().rev().map(|entry| letter(entry, look)).collect::<Vec<_>>().join("\n")
}

fn letter(entry: &HistoryEntry, look: Look) -> String {
    let receipt = &entry.receipt;
    let question = receipt.reply_to.as_ref().map(|id| format!(" in answer to {id}")).unwrap_or_default();
    let (from, sent) = (look.paint(Tone::Strong, printable_line(&entry.from_name)), ago(receipt.sent_at, clock::now()));
    let state = match receipt.state {
        MessageState::Queued => look.paint(Tone::Warn, "new"),
        state => look.paint(rows::tone(state), state.as_str()),
    };
    format!("{}  {from}{question}, {sent}  {state}\n{}\n", receipt.message_id, printable(&entry.text))
}
