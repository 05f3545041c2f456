use super::link::read_forwarded;
use crate::{
    db::{self, Row, View, sqlite},
    wire::{self, Held, HeldBy, MessageId, MessageState, PeerId, Receipt, Route, Timestamp},
};

/// A message as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Everything that its sender may know. It names the recipient by id.
    pub receipt: Receipt,
    pub text: String,
    /// How often it may have been shown.
    pub handed: u32,
}

/// The columns of a [`Message`].
pub(super) const COLUMNS: &str = "seq, tag, from_peer, to_peer, state, route, held_at, held_by, reply_to, sent_at, expires_at, \
                                  offered_at, delivered_at, expired_at, text, handed, link";

impl Message {
    /// The first message that meets `condition`.
    pub(super) fn one(view: &View<'_>, condition: &str, values: impl sqlite::Params) -> db::Result<Option<Self>> {
        view.one(&format!("SELECT {COLUMNS} FROM message WHERE {condition}"), values, Self::read)
    }

    /// Every message that meets `condition`.
    pub(super) fn all(view: &View<'_>, condition: &str, values: impl sqlite::Params) -> db::Result<Vec<Self>> {
        view.all(&format!("SELECT {COLUMNS} FROM message WHERE {condition}"), values, Self::read)
    }

    /// The message in a row of [`COLUMNS`].
    pub(super) fn read(row: &Row<'_>) -> sqlite::Result<Self> {
        let time = |column: usize| Ok::<_, sqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis));
        let to = read_peer(row, 3)?;
        let receipt = Receipt {
            message_id: read_id(row)?,
            from: read_peer(row, 2)?,
            to_name: to.to_string(),
            to,
            state: read_state(row, 4, 6, 16)?,
            route: read_route(row, 5)?,
            sent_at: Timestamp::from_millis(row.get(9)?),
            forwarded_at: read_forwarded(row, 16)?,
            offered_at: time(11)?,
            delivered_at: time(12)?,
            held: time(6)?.zip(held_by(row.get(7)?)).map(|(at, by)| Held { at, by }),
            expired_at: time(13)?,
            expires_at: Timestamp::from_millis(row.get(10)?),
            reply_to: row.get_ref(8)?.as_str_or_null()?.and_then(|id| id.parse().ok()),
            warning: None,
        };
        Ok(Self { receipt, text: row.get(14)?, handed: row.get(15)? })
    }
}

/// The id in the columns `seq, tag`.
pub(super) fn read_id(row: &Row<'_>) -> sqlite::Result<MessageId> {
    stored_id(row.get(0)?, row.get_ref(1)?.as_str()?)
}

/// The id made of these columns.
pub(super) fn stored_id(seq: i64, tag: &str) -> sqlite::Result<MessageId> {
    let invalid = |error: wire::Error| sqlite::Error::FromSqlConversionFailure(0, sqlite::types::Type::Text, error.into());
    MessageId::new(seq, tag).map_err(invalid)
}

pub(super) fn read_peer(row: &Row<'_>, column: usize) -> sqlite::Result<PeerId> {
    Ok(PeerId::lenient(row.get_ref(column)?.as_str()?))
}

pub(super) fn read_route(row: &Row<'_>, column: usize) -> sqlite::Result<Option<Route>> {
    Ok(row.get_ref(column)?.as_str_or_null()?.and_then(Route::parse))
}

/// The state in the columns `state`, `held_at` and `link`.
pub(super) fn read_state(row: &Row<'_>, state: usize, held_at: usize, link: usize) -> sqlite::Result<MessageState> {
    let is_held = row.get::<_, Option<i64>>(held_at)?.is_some();
    Ok(match row.get(state)? {
        0 | 1 if is_held => MessageState::Held,
        0 if read_forwarded(row, link)?.is_some() => MessageState::Forwarded,
        0 => MessageState::Queued,
        1 => MessageState::Offered,
        2 => MessageState::Delivered,
        _ => MessageState::Expired,
    })
}

/// The number of a reason in the column `held_by`; 0 means none.
pub(super) fn held_number(by: Option<HeldBy>) -> i64 {
    match by {
        None => 0,
        Some(HeldBy::Mode) => 1,
        Some(HeldBy::Hold) => 2,
        Some(HeldBy::Refuse) => 3,
    }
}

fn held_by(number: i64) -> Option<HeldBy> {
    [HeldBy::Mode, HeldBy::Hold, HeldBy::Refuse].into_iter().find(|by| held_number(Some(*by)) == number)
}
