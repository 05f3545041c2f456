//! Messages and their way from *queued* to *delivered*.
//!
//! What holds: a message is handed over by one lease at a time; `handed` counts, **before** the fact, how often it may have
//! been shown, so that after any crash a second showing is known to be one; a message leaves `waiting` only when it was
//! delivered, expired, or pushed into a channel that has proved itself.

use crate::db::{Error, Result as StoreResult};
use crate::wire::{Code, Error as WireError, Held, HeldBy, InvalidId, MessageId, MessageState, PeerId, Route, Timestamp};
use rusqlite::{Connection, OptionalExtension, Result, Row, params, types::Type};

/// A message to store.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// The random part of its id.
    pub tag: String,
    pub from: PeerId,
    pub to: PeerId,
    pub text: String,
    pub reply_to: Option<MessageId>,
    pub key: Option<String>,
    pub sent_at: Timestamp,
    /// Until when it waits.
    pub expires_at: Timestamp,
    /// It is let in whatever the permission modes.
    pub passes: bool,
    /// Its sender bypasses permission prompts.
    pub bypassed: bool,
    /// Why it is held from the start.
    pub held: Option<HeldBy>,
}

/// A message as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: MessageId,
    pub from: String,
    pub to: String,
    pub text: String,
    pub reply_to: Option<MessageId>,
    pub sent_at: Timestamp,
    /// Until when it waits.
    pub expires_at: Timestamp,
    pub state: MessageState,
    /// By which route it got there.
    pub route: Option<Route>,
    /// How often it may have been shown.
    pub handed: u32,
    /// Since when it is held, and why.
    pub held: Option<Held>,
    pub offered_at: Option<Timestamp>,
    pub delivered_at: Option<Timestamp>,
    pub expired_at: Option<Timestamp>,
}

pub(super) const COLUMNS: &str = "seq, tag, from_peer, to_peer, text, reply_to, sent_at, expires_at, state, route, handed, offered_at, delivered_at, expired_at, held_at, held_by";
/// How many there are: where further columns of a query begin.
pub(super) const COLUMN_COUNT: usize = 16;

/// The message id in a row: its place in column `first`, its random part in the next.
pub(super) fn id_at(row: &Row<'_>, first: usize) -> Result<MessageId> {
    let invalid = |error: InvalidId| rusqlite::Error::FromSqlConversionFailure(first, Type::Text, error.into());
    MessageId::new(row.get(first)?, row.get::<_, String>(first + 1)?).map_err(invalid)
}

pub(super) fn read(row: &Row<'_>) -> Result<Message> {
    let time = |column: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis));
    let held = time(14)?.zip(held_by(row.get(15)?)).map(|(at, by)| Held { at, by });
    Ok(Message {
        id: id_at(row, 0)?,
        from: row.get(2)?,
        to: row.get(3)?,
        text: row.get(4)?,
        reply_to: row.get::<_, Option<String>>(5)?.and_then(|id| id.parse().ok()),
        sent_at: Timestamp::from_millis(row.get(6)?),
        expires_at: Timestamp::from_millis(row.get(7)?),
        state: match row.get(8)? {
            0 | 1 if held.is_some() => MessageState::Held,
            0 => MessageState::Queued,
            1 => MessageState::Offered,
            2 => MessageState::Delivered,
            _ => MessageState::Expired,
        },
        route: row.get::<_, Option<String>>(9)?.as_deref().and_then(Route::parse),
        handed: row.get(10)?,
        held,
        offered_at: time(11)?,
        delivered_at: time(12)?,
        expired_at: time(13)?,
    })
}

/// The number that stands for a reason in the database.
pub(super) fn held_number(by: HeldBy) -> i64 {
    match by {
        HeldBy::Mode => 1,
        HeldBy::Hold => 2,
        HeldBy::Refuse => 3,
    }
}

fn held_by(number: i64) -> Option<HeldBy> {
    [HeldBy::Mode, HeldBy::Hold, HeldBy::Refuse].into_iter().find(|by| held_number(*by) == number)
}

/// The message that `from` sent under this idempotency key.
///
/// # Errors
/// [`Code::IdempotencyConflict`] if it was another text or recipient; SQLite's.
pub fn sent_before(connection: &Connection, from: &PeerId, key: &str, to: &PeerId, text: &str) -> StoreResult<Option<Message>> {
    let sql = format!("SELECT {COLUMNS} FROM message WHERE from_peer = ?1 AND key = ?2");
    let found = connection.prepare_cached(&sql)?.query_row(params![from.as_str(), key], read).optional()?;
    match found {
        Some(message) if message.to != to.as_str() || message.text != text => {
            let what = format!("idempotency key {key:?} was used before, for message {}", message.id);
            Err(Error::Refused(WireError::new(Code::IdempotencyConflict, what).help("use a new key for a new message")))
        }
        found => Ok(found),
    }
}

/// The first message from `from` to `to` that names `question`.
pub fn answer(connection: &Connection, question: &MessageId, from: &PeerId, to: &PeerId) -> Result<Option<Message>> {
    // By place: only what came after the question is looked at.
    let sql = format!(
        "SELECT {COLUMNS} FROM message WHERE seq > ?1 AND reply_to = ?2 AND from_peer = ?3 AND to_peer = ?4 ORDER BY seq LIMIT 1"
    );
    let values = params![question.seq(), question.to_string(), from.as_str(), to.as_str()];
    connection.prepare_cached(&sql)?.query_row(values, read).optional()
}

/// The key of one recipient's copy of a message to many: the blank, which no client's key has, keeps it apart.
pub fn key_of_copy(key: &str, to: &PeerId) -> String {
    format!("{key} {to}")
}

/// To whom `from` sent copies of a message under this key.
pub fn copies_of(connection: &Connection, from: &PeerId, key: &str) -> Result<Vec<String>> {
    let sql = "SELECT to_peer FROM message WHERE from_peer = ?1 AND key > ?2 || ' ' AND key < ?2 || '!'";
    connection.prepare_cached(sql)?.query_map([from.as_str(), key], |row| row.get(0))?.collect()
}

/// Stores a message; `lease` is the stream that will be told of it at once. Gives its place.
pub fn insert(connection: &Connection, message: &NewMessage, lease: Option<&str>) -> Result<i64> {
    let sql =
        "INSERT INTO message (tag, from_peer, to_peer, text, reply_to, key, sent_at, expires_at, lease, handed, passes, held_at,
                   held_by, bypassed)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    connection.prepare_cached(sql)?.execute(params![
        message.tag,
        message.from.as_str(),
        message.to.as_str(),
        message.text,
        message.reply_to.as_ref().map(ToString::to_string),
        message.key,
        message.sent_at.as_millis(),
        message.expires_at.as_millis(),
        lease,
        i64::from(lease.is_some()),
        message.passes,
        message.held.map(|_| message.sent_at.as_millis()),
        message.held.map_or(0, held_number),
        message.bypassed,
    ])?;
    Ok(connection.last_insert_rowid())
}

/// The message with this id.
pub fn get(connection: &Connection, id: &MessageId) -> Result<Option<Message>> {
    let sql = format!("SELECT {COLUMNS} FROM message WHERE seq = ?1 AND tag = ?2");
    connection.prepare_cached(&sql)?.query_row(params![id.seq(), id.tag()], read).optional()
}

/// How many messages wait, by recipient.
pub fn waiting(connection: &Connection) -> Result<Vec<(String, u32)>> {
    let mut statement = connection.prepare("SELECT to_peer, count(*) FROM message WHERE waiting = 1 GROUP BY to_peer")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}
