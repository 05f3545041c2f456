//! Messages as rows of a table.

use crate::{
    console::{Column, Field, Look, Tone, ago},
    wire::{HistoryEntry, MessageState, Timestamp, text::first_words},
};

/// Most characters of a text in a row; `message ID` shows all of it.
const SHOWN: usize = 200;

/// The columns of lists of messages.
pub const COLUMNS: [Column; 6] = [
    Column::whole("MESSAGE"),
    Column::whole("SENT").droppable(2),
    Column::cut("FROM", 8).droppable(1),
    Column::cut("TO", 8).droppable(1),
    Column::whole("STATE").droppable(3),
    Column::cut("TEXT", 12),
];

/// The tone in which a state is shown.
pub fn tone(state: MessageState) -> Tone {
    match state {
        MessageState::Queued | MessageState::Held => Tone::Warn,
        MessageState::Forwarded | MessageState::Offered => Tone::Plain,
        MessageState::Delivered => Tone::Good,
        MessageState::Expired => Tone::Bad,
    }
}

/// A message's row in lists of messages.
pub fn row(entry: &HistoryEntry, now: Timestamp, look: Look) -> Vec<Field> {
    let receipt = &entry.receipt;
    // People see how long ago it was, scripts see the time.
    let sent = if look.terminal { ago(receipt.sent_at, now) } else { receipt.sent_at.to_string() };
    vec![
        receipt.message_id.to_string().into(),
        Field::new(sent, Tone::Dim),
        entry.from_name.as_str().into(),
        receipt.to_name.as_str().into(),
        Field::new(receipt.state.as_str(), tone(receipt.state)),
        first_words(&entry.text, SHOWN).into(),
    ]
}
