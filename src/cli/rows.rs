//! Messages as a table.

use crate::{
    console::{Column, Field, Look, Tone, ago},
    platform::clock,
    wire::{HistoryEntry, MessageState, Timestamp, text::first_words},
};

/// Most characters of a text in a row; `message ID` shows all of it.
pub const SHOWN: usize = 200;

/// The tone in which a state is shown.
pub fn tone(state: MessageState) -> Tone {
    match state {
        MessageState::Queued | MessageState::Held => Tone::Warn,
        MessageState::Forwarded | MessageState::Offered => Tone::Plain,
        MessageState::Delivered => Tone::Good,
        MessageState::Expired => Tone::Bad,
    }
}

/// A list of messages, one line each, with at most so many characters of a text.
pub fn table(messages: &[HistoryEntry], most: usize, look: Look) -> String {
    let now = clock::now();
    // People see how long ago it was, scripts see the time.
    let sent = |at: Timestamp| if look.terminal { ago(at, now) } else { at.to_string() };
    look.table(
        messages,
        &[
            (Column::whole("MESSAGE"), &|entry| entry.receipt.message_id.to_string().into()),
            (Column::whole("SENT").droppable(2), &|entry| Field::new(sent(entry.receipt.sent_at), Tone::Dim)),
            (Column::cut("FROM", 8).droppable(1), &|entry| entry.from_name.as_str().into()),
            (Column::cut("TO", 8).droppable(1), &|entry| entry.receipt.to_name.as_str().into()),
            (Column::whole("STATE").droppable(3), &|HistoryEntry { receipt, .. }| {
                Field::new(receipt.state.as_str(), tone(receipt.state))
            }),
            (Column::cut("TEXT", 12), &|entry| first_words(&entry.text, most).into()),
        ],
    )
}
