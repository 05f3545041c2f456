//! `history`: messages sent and received, newest first.

use super::{
    candidates, rows,
    watch::lines::{self, Wanted},
    when,
};
use crate::{
    client::{Client, with_query},
    console::{Failure, Look, Out},
    wire::{HistoryEntry, HistoryPage, MessageId, MessageRef, MessageState, PeerRef, Timestamp},
};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;
use std::{collections::BTreeSet, rc::Rc};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only messages from or to this peer (an id or a name; `cli` is you)
    #[arg(long, add = candidates::correspondents())]
    pub peer: Option<PeerRef>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub limit: u32,
    /// Only messages older than this one: an id, or a number alone (m1042)
    #[arg(long, value_name = "ID", add = candidates::messages())]
    pub before: Option<MessageRef>,
    /// Only messages sent since: a span such as 2h or 7d, a day such as 2026-03-01, or a time
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    pub since: Option<Timestamp>,
    /// Only messages in this state
    #[arg(long, value_parser = states())]
    pub state: Option<MessageState>,
    /// Only this message's conversation: what it answers, and all answers
    #[arg(long, value_name = "ID", add = candidates::messages())]
    pub thread: Option<MessageRef>,
    /// Then print messages as they come and change, one a line, until interrupted
    #[arg(long, short, conflicts_with = "before")]
    pub follow: bool,
}

/// The states that a message can have.
pub fn states() -> impl TypedValueParser<Value = MessageState> {
    PossibleValuesParser::new(MessageState::ALL.iter().map(|state| state.as_str()))
        .try_map(|state| MessageState::parse(&state).ok_or("no such state"))
}

/// The messages of this one's conversation.
async fn conversation(id: MessageId, broker: &Client) -> Result<BTreeSet<MessageId>, Failure> {
    let (mut conversation, mut after) = (BTreeSet::from([id.clone()]), "0".to_owned());
    loop {
        let path = with_query("/v1/history", &json!({ "thread": id, "limit": 1_000, "after": after }));
        let page: HistoryPage = broker.get(&path, None).await?;
        conversation.extend(page.messages.into_iter().map(|entry| entry.receipt.message_id));
        match page.next {
            Some(next) => after = next.to_string(),
            None => return Ok(conversation),
        }
    }
}

pub async fn run(args: Args, broker: Client, out: Out) -> Result<(), Failure> {
    let Args { peer, limit, before, since, state, thread, follow } = args;
    let query = json!({
        "peer": peer, "limit": limit, "before": before, "since": since, "state": state, "thread": thread,
    });
    let newest = if follow { lines::newest(&broker).await? } else { None };
    let page: HistoryPage = broker.get(&with_query("/v1/history", &query), None).await?;
    if follow {
        let thread = match thread {
            Some(named) => Some(conversation(whole(named, &broker).await?, &broker).await?),
            None => None,
        };
        let wanted = Wanted { peer, state, thread };
        return lines::follow(Rc::new(broker), out, page, newest, wanted).await;
    }
    out.answer(&page, render)?;
    if let Some(next) = page.next {
        out.aside(&format!("Older ones: claude-peers history --before {next}"));
    }
    Ok(())
}

/// The id of the message that the user names.
async fn whole(named: MessageRef, broker: &Client) -> Result<MessageId, Failure> {
    match named {
        MessageRef::Id(id) => Ok(id),
        MessageRef::Number(_) => {
            let entry: HistoryEntry = broker.get(&format!("/v1/messages/{named}"), None).await?;
            Ok(entry.receipt.message_id)
        }
    }
}

fn render(page: &HistoryPage, look: Look) -> String {
    if page.messages.is_empty() && look.terminal {
        return "No messages.\n".to_owned();
    }
    rows::table(&page.messages, rows::SHOWN, look)
}
