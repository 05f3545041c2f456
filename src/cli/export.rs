//! `export`: messages as JSON lines, or as one web page of conversations.

use super::{candidates, when};
use crate::{
    client::{Client, with_query},
    console::{Failure, Out},
    platform::clock,
    wire::{HistoryEntry, HistoryPage, MessageId, PeerRef, Timestamp, text::printable},
};
use maud::{DOCTYPE, Markup, html};
use serde_json::json;
use std::collections::BTreeMap;

/// How many messages one request brings.
const PAGE: u32 = 500;
/// The page needs nothing else: no script runs in it, and it loads and sends nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
section { margin: 2.5rem 0; border-left: 2px solid #bbb; padding-left: 1.2rem }
article { position: relative; margin: 1rem 0 }
article::before { content: ''; position: absolute; left: -1.58rem; top: .5rem; width: .6rem; height: .6rem; border-radius: 50%; background: #888 }
header { color: #666; font-size: .87rem }
header b { color: #222 }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0; font: inherit }
.expired::before { background: #c33 } .delivered::before { background: #2a7 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #161616 } header b { color: #eee } header { color: #999 } }";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  claude-peers export --since 30d >messages.jsonl
  claude-peers export --html --peer shop-api >shop-api.html")]
pub struct Args {
    /// One web page of conversations instead of a line of JSON for each message
    #[arg(long, conflicts_with = "json")]
    pub html: bool,
    /// Only messages from or to this peer (an id or a name; `cli` is you)
    #[arg(long, add = candidates::correspondents())]
    pub peer: Option<PeerRef>,
    /// Only messages sent since: a span such as 2h or 7d, a day such as 2026-03-01, or a time
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    pub since: Option<Timestamp>,
    /// Only messages sent before: a span such as 2h or 7d, a day such as 2026-03-01, or a time
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    pub before: Option<Timestamp>,
}

/// Writes page after page, so the length of the history does not matter. Only a web page is made of all messages at once.
pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    let (mut after, mut all) = ("0".to_owned(), Vec::new());
    loop {
        let query = json!({ "limit": PAGE, "after": after, "peer": args.peer, "since": args.since, "until": args.before });
        let page: HistoryPage = broker.get(&with_query("/v1/history", &query), None).await?;
        match args.html {
            true => all.extend(page.messages),
            false => page.messages.iter().try_for_each(|entry| out.json(entry))?,
        }
        match page.next {
            Some(next) => after = next.to_string(),
            None if args.html => return out.raw(&document(&conversations(&all)).into_string()),
            None => return Ok(()),
        }
    }
}

/// The messages by conversation, each oldest first. An answer belongs to the conversation of its question.
fn conversations(messages: &[HistoryEntry]) -> Vec<Vec<&HistoryEntry>> {
    let mut places: BTreeMap<&MessageId, usize> = BTreeMap::new();
    let mut conversations: Vec<Vec<&HistoryEntry>> = Vec::new();
    for entry in messages {
        let question = entry.receipt.reply_to.as_ref().and_then(|id| places.get(id).copied());
        let place = question.unwrap_or(conversations.len());
        if place == conversations.len() {
            conversations.push(Vec::new());
        }
        conversations[place].push(entry);
        places.insert(&entry.receipt.message_id, place);
    }
    conversations
}

fn document(conversations: &[Vec<&HistoryEntry>]) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width";
                title { "Conversations" }
                style { (maud::PreEscaped(STYLE)) }
            }
            body {
                h1 { "Conversations" }
                p { (conversations.iter().map(Vec::len).sum::<usize>()) " messages, as of " (clock::now().to_string()) }
                @for conversation in conversations {
                    section { @for entry in conversation { (article(entry)) } }
                }
            }
        }
    }
}

fn article(entry: &HistoryEntry) -> Markup {
    let receipt = &entry.receipt;
    html! {
        article id=(receipt.message_id) class=(receipt.state) {
            header {
                b { (printable(&entry.from_name)) " → " (printable(&receipt.to_name)) }
                " " time datetime=(receipt.sent_at) { (receipt.sent_at.to_string()) }
                " " (receipt.state.as_str()) " " (receipt.message_id.to_string())
            }
            pre { (printable(&entry.text)) }
        }
    }
}
