//! `message`: shows a message and its state.

use super::candidates;
use crate::{
    client::Client,
    console::{Failure, Look, Out, Tone},
    wire::{
        HistoryEntry, MessageRef, MessageState,
        text::{printable, printable_line},
    },
};

/// Which message.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The message: its id, as `send` and `history` show it, or its number alone (m1042)
    #[arg(add = candidates::messages())]
    pub id: MessageRef,
}

pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    out.answer(&broker.get::<HistoryEntry>(&format!("/v1/messages/{}", args.id), None).await?, render)
}

/// The tone in which a state is shown.
pub fn tone(state: MessageState) -> Tone {
    match state {
        MessageState::Queued | MessageState::Held => Tone::Warn,
        MessageState::Offered => Tone::Plain,
        MessageState::Delivered => Tone::Good,
        MessageState::Expired => Tone::Bad,
    }
}

fn render(entry: &HistoryEntry, look: Look) -> String {
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
    let times =
        [("offered", receipt.offered_at), ("held", held), ("delivered", receipt.delivered_at), ("expired", receipt.expired_at)];
    facts.extend(times.into_iter().filter_map(|(name, time)| Some((name, look.time(time?)))));
    if matches!(receipt.state, MessageState::Queued | MessageState::Offered | MessageState::Held) {
        facts.push(("expires", look.time(receipt.expires_at)));
    }
    facts.extend(receipt.reply_to.as_ref().map(|id| ("answers", id.to_string())));
    facts.extend(
        receipt.warning.as_ref().map(|warning| ("warning", look.paint(Tone::Warn, printable_line(&look.sentence(warning))))),
    );
    format!("{}\n{}\n", look.facts(&facts), printable(&entry.text))
}
