//! `search`: full-text search in messages.

use super::{candidates, history, rows, when};
use crate::{
    client::{Client, with_query},
    console::{Failure, Look, Out, Tone, ago},
    platform::clock,
    wire::{Excerpt, Found, HistoryEntry, MessageState, PeerRef, SearchPage, Timestamp, text::printable_line},
};
use serde_json::json;
use std::time::Duration;

/// The first search after an upgrade reads all messages: seconds for a million.
const FIRST_SEARCH: Duration = Duration::from_secs(600);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  claude-peers search price orders
  claude-peers search '\"which port\"' --peer shop-api --since 7d
  claude-peers search 'migrat*' --state delivered")]
pub struct Args {
    /// All of these words must occur, in any case and order. Quote a phrase: '"which port"'; end a word with * to match its beginning:
    /// 'migrat*'
    #[arg(required = true)]
    pub words: Vec<String>,
    /// Only messages from or to this peer (an id or a name; `cli` is you)
    #[arg(long, add = candidates::correspondents())]
    pub peer: Option<PeerRef>,
    /// Only messages from or to a session in a repository of this name
    #[arg(long, value_name = "NAME")]
    pub repo: Option<String>,
    /// Only messages sent since: a span such as 2h or 7d, a day such as 2026-03-01, or a time
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    pub since: Option<Timestamp>,
    /// Only messages sent before: a span such as 2h or 7d, a day such as 2026-03-01, or a time
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    pub before: Option<Timestamp>,
    /// Only messages in this state
    #[arg(long, value_parser = history::states())]
    pub state: Option<MessageState>,
    /// At most this many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
}

pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    let Args { words, peer, repo, since, before, state, limit } = args;
    let query = json!({
        "words": words.join(" "), "peer": peer, "repo": repo, "since": since, "before": before, "state": state, "limit": limit,
    });
    let page: SearchPage = broker.get_waiting(&with_query("/v1/search", &query), None, FIRST_SEARCH).await?;
    out.answer(&page, render)
}

fn render(page: &SearchPage, look: Look) -> String {
    if !look.terminal {
        return rows::table(&page.messages.iter().map(excerpt).collect::<Vec<_>>(), usize::MAX, look);
    }
    if page.messages.is_empty() {
        return "No message has these words.\n".to_owned();
    }
    page.messages.iter().map(|found| shown(found, look)).collect()
}

/// The message with only its excerpt.
fn excerpt(Found { entry, excerpt }: &Found) -> HistoryEntry {
    HistoryEntry { text: excerpt.iter().map(|part| part.text.as_str()).collect(), ..entry.clone() }
}

/// A line about the message, and one with what was found in bold.
fn shown(Found { entry, excerpt }: &Found, look: Look) -> String {
    let receipt = &entry.receipt;
    let (from, to) = (printable_line(&entry.from_name), printable_line(&receipt.to_name));
    let state = look.paint(rows::tone(receipt.state), receipt.state.as_str());
    let sent = look.paint(Tone::Dim, ago(receipt.sent_at, clock::now()));
    let part = |part: &Excerpt| {
        let text = part.text.replace(char::is_whitespace, " ");
        look.paint(if part.hit { Tone::Strong } else { Tone::Plain }, printable_line(&text))
    };
    let text: String = excerpt.iter().map(part).collect();
    format!("{}  {sent}  {from} → {to}  {state}\n    {}\n", receipt.message_id, text.trim())
}
