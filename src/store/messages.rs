//! Messages and their way from *queued* to *delivered*.
//!
//! What holds: a message is handed over by one lease at a time; `handed` counts, **before** the fact, how often it may have
//! been shown, so that after any crash a second showing is known to be one; a message leaves `waiting` only when it was
//! delivered, expired, or pushed into a channel that has proved itself.

use super::{Error, Result as StoreResult};
use crate::wire::{Code, Error as WireError, MessageId, PeerId, Route, State, Timestamp};
use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use std::time::Duration;

/// How long mail taken over from the reference's database waits.
pub(super) const EXPIRY_OF_IMPORTED: Duration = Duration::from_secs(7 * 86_400);

/// A message to store.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// The random part of its id.
    pub tag: String,
    /// Its sender.
    pub from: PeerId,
    /// Its recipient.
    pub to: PeerId,
    /// Its text.
    pub text: String,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// Its idempotency key.
    pub key: Option<String>,
    /// When it is accepted.
    pub sent_at: Timestamp,
    /// Until when it waits.
    pub expires_at: Timestamp,
}

/// A message as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Its sender.
    pub from: String,
    /// Its recipient.
    pub to: String,
    /// Its text.
    pub text: String,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// When it was accepted.
    pub sent_at: Timestamp,
    /// Until when it waits.
    pub expires_at: Timestamp,
    /// Where it stands.
    pub state: State,
    /// By which route it got there.
    pub route: Option<Route>,
    /// How often it may have been shown.
    pub handed: u32,
    /// When it was pushed.
    pub offered_at: Option<Timestamp>,
    /// When it was delivered.
    pub delivered_at: Option<Timestamp>,
    /// When it expired.
    pub expired_at: Option<Timestamp>,
}

const COLUMNS: &str = "seq, tag, from_peer, to_peer, text, reply_to, sent_at, expires_at, state, route, handed, offered_at, delivered_at, expired_at";

fn read(row: &Row<'_>) -> Result<Message> {
    let time = |column: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Timestamp));
    Ok(Message {
        id: MessageId { seq: row.get(0)?, tag: row.get(1)? },
        from: row.get(2)?,
        to: row.get(3)?,
        text: row.get(4)?,
        reply_to: row.get::<_, Option<String>>(5)?.and_then(|id| id.parse().ok()),
        sent_at: Timestamp(row.get(6)?),
        expires_at: Timestamp(row.get(7)?),
        state: match row.get(8)? {
            0 => State::Queued,
            1 => State::Offered,
            2 => State::Delivered,
            _ => State::Expired,
        },
        route: row.get::<_, Option<String>>(9)?.as_deref().and_then(Route::parse),
        handed: row.get(10)?,
        offered_at: time(11)?,
        delivered_at: time(12)?,
        expired_at: time(13)?,
    })
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

/// Stores a message; `lease` is the stream that will be told of it at once. Gives its place.
///
/// # Errors
/// SQLite's.
pub fn insert(connection: &Connection, message: &NewMessage, lease: Option<&str>) -> Result<i64> {
    let sql = "INSERT INTO message (tag, from_peer, to_peer, text, reply_to, key, sent_at, expires_at, lease, handed)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    connection.prepare_cached(sql)?.execute(params![
        message.tag,
        message.from.as_str(),
        message.to.as_str(),
        message.text,
        message.reply_to.as_ref().map(ToString::to_string),
        message.key,
        message.sent_at.0,
        message.expires_at.0,
        lease,
        i64::from(lease.is_some()),
    ])?;
    Ok(connection.last_insert_rowid())
}

/// Whether fresh mail waits for `peer` that is not in the hands of the stream `lease`: then later mail may not overtake it
/// through that stream.
///
/// # Errors
/// SQLite's.
pub fn has_others(connection: &Connection, peer: &PeerId, lease: &str) -> Result<bool> {
    // Three seeks in the index on (to_peer, lease), however much waits.
    let sql = "WITH fresh AS (SELECT lease FROM message WHERE to_peer = ?1 AND waiting = 1 AND again = 0)
               SELECT EXISTS (SELECT 1 FROM fresh WHERE lease IS NULL)
                   OR EXISTS (SELECT 1 FROM fresh WHERE lease < ?2) OR EXISTS (SELECT 1 FROM fresh WHERE lease > ?2)";
    connection.prepare_cached(sql)?.query_row([peer.as_str(), lease], |row| row.get(0))
}

/// Leases the oldest fresh mail of `peer` to its stream, at most `most`, unless some of it is in other hands: that goes first.
/// Gives what was leased, in order.
///
/// # Errors
/// SQLite's.
pub fn lease_to_stream(connection: &Connection, peer: &PeerId, lease: &str, most: u32) -> Result<Vec<Message>> {
    let sql = format!(
        "UPDATE message SET lease = ?2, handed = handed + 1
         WHERE seq IN (SELECT seq FROM message WHERE to_peer = ?1 AND waiting = 1 AND again = 0 AND lease IS NULL ORDER BY seq LIMIT ?3)
         AND NOT EXISTS (SELECT 1 FROM message WHERE to_peer = ?1 AND waiting = 1 AND again = 0 AND (lease < ?2 OR lease > ?2))
         RETURNING {COLUMNS}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut leased: Vec<Message> = statement.query_map(params![peer.as_str(), lease, most], read)?.collect::<Result<_>>()?;
    leased.sort_by_key(|message| message.id.seq); // RETURNING promises no order
    Ok(leased)
}

/// The messages under `lease` behind `after`, in order, at most `most`.
///
/// # Errors
/// SQLite's.
pub fn leased(connection: &Connection, peer: &PeerId, lease: &str, after: i64, most: u32) -> Result<Vec<Message>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM message WHERE to_peer = ?1 AND waiting = 1 AND lease = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map(params![peer.as_str(), lease, after, most], read)?.collect()
}

/// Leases what waits for `peer` and may go by a route: oldest first, up to `max_bytes` of text, at least one, and nothing
/// that would overtake fresh mail in other hands. The same lease gives the same messages again.
///
/// # Errors
/// SQLite's.
pub fn take(connection: &Connection, peer: &PeerId, lease: &str, announced_too: bool, max_bytes: usize) -> Result<Vec<Message>> {
    let again = leased(connection, peer, lease, 0, u32::MAX)?;
    if !again.is_empty() {
        return Ok(again);
    }
    let sql = format!("SELECT {COLUMNS}, again, lease IS NULL FROM message WHERE to_peer = ?1 AND waiting = 1 ORDER BY seq");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([peer.as_str()])?;
    let (mut taken, mut bytes) = (Vec::new(), 0_usize);
    while let Some(row) = rows.next()? {
        let (again, free): (i64, bool) = (row.get(14)?, row.get(15)?);
        match (again, free) {
            (0, false) => break,
            (2, _) if !announced_too => continue,
            (_, false) => continue,
            (_, true) => {}
        }
        let message = read(row)?;
        bytes = bytes.saturating_add(message.text.len());
        if !taken.is_empty() && bytes > max_bytes {
            break;
        }
        taken.push(message);
    }
    drop(rows);
    let mut mark = connection.prepare_cached("UPDATE message SET lease = ?2, handed = handed + 1 WHERE seq = ?1")?;
    for message in &mut taken {
        mark.execute(params![message.id.seq, lease])?;
        message.handed += 1;
    }
    Ok(taken)
}

/// Ends every lease on mail of `peer` but those of the process `instance`: their holders are gone, and nobody can say what
/// they showed, so the mail waits again and counts as possibly shown. How many.
///
/// # Errors
/// SQLite's.
pub fn lapse(connection: &Connection, peer: &PeerId, instance: &str) -> Result<usize> {
    let sql = "UPDATE message SET lease = NULL
               WHERE to_peer = ?1 AND waiting = 1 AND lease IS NOT NULL AND substr(lease, 3, length(?2)) <> ?2";
    connection.prepare_cached(sql)?.execute(params![peer.as_str(), instance])
}

/// What a settlement changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// The message's state or lease changed.
    pub changed: bool,
    /// By how much the number of waiting messages changed.
    pub waiting: i64,
}

impl Change {
    fn of(rows: usize, waiting: i64) -> Self {
        Self { changed: rows > 0, waiting: if rows > 0 { waiting } else { 0 } }
    }
}

/// `id` was pushed into the channel of the host process `pushed_by`; if that channel has `proved` itself, nothing else will
/// hand it over again.
///
/// # Errors
/// SQLite's.
pub fn offered(
    connection: &Connection,
    peer: &PeerId,
    id: &MessageId,
    pushed_by: &str,
    proved: bool,
    now: Timestamp,
) -> Result<Change> {
    let sql =
        "UPDATE message SET state = 1, route = 'channel', offered_at = ?4, lease = NULL, pushed_by = ?5, again = 1, waiting = ?6
               WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3 AND state = 0";
    let rows = connection.prepare_cached(sql)?.execute(params![id.seq, id.tag, peer.as_str(), now.0, pushed_by, !proved])?;
    Ok(Change::of(rows, if proved { -1 } else { 0 }))
}

/// Only the beginning of `id` was handed over, by the channel `pushed_by` if by one; its whole text has not been shown.
///
/// # Errors
/// SQLite's.
pub fn announced(
    connection: &Connection,
    peer: &PeerId,
    id: &MessageId,
    route: Route,
    pushed_by: Option<&str>,
    now: Timestamp,
) -> Result<Change> {
    let sql = "UPDATE message SET state = 1, route = ?4, offered_at = coalesce(offered_at, ?5), lease = NULL, again = 2,
                   handed = max(handed - 1, 0), pushed_by = coalesce(?6, pushed_by)
               WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3 AND state < 2 AND waiting = 1 AND lease IS NOT NULL";
    let values = params![id.seq, id.tag, peer.as_str(), route.as_str(), now.0, pushed_by];
    Ok(Change::of(connection.prepare_cached(sql)?.execute(values)?, 0))
}

/// `id` was handed to the model for certain. Says so even of a message that had expired meanwhile: it is the truth.
///
/// # Errors
/// SQLite's.
pub fn delivered(connection: &Connection, peer: &PeerId, id: &MessageId, route: Route, now: Timestamp) -> Result<Change> {
    let waited = connection
        .prepare_cached("SELECT waiting FROM message WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3 AND state <> 2")?
        .query_row(params![id.seq, id.tag, peer.as_str()], |row| row.get::<_, i64>(0))
        .optional()?;
    let Some(waited) = waited else { return Ok(Change::default()) };
    let sql = "UPDATE message SET state = 2, route = ?2, delivered_at = ?3, lease = NULL, waiting = 0 WHERE seq = ?1";
    let rows = connection.prepare_cached(sql)?.execute(params![id.seq, route.as_str(), now.0])?;
    Ok(Change::of(rows, -waited))
}

/// `id` was taken but not shown: it waits again as if never taken.
///
/// # Errors
/// SQLite's.
pub fn released(connection: &Connection, peer: &PeerId, id: &MessageId, route: Route) -> Result<Change> {
    let sql = "UPDATE message SET lease = NULL, handed = max(handed - 1, 0)
               WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3 AND waiting = 1 AND substr(lease, 1, 2) = ?4";
    Ok(Change::of(connection.prepare_cached(sql)?.execute(params![id.seq, id.tag, peer.as_str(), holder(route)])?, 0))
}

/// Whose lease a settlement for `route` speaks of: the stream's, or a take's. One that is said again after a crash must not
/// end the lease of another route that has the message by now.
fn holder(route: Route) -> &'static str {
    if route == Route::Channel { "s:" } else { "t:" }
}

/// A message that a reply names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its sender.
    pub from: String,
    /// Its recipient.
    pub to: String,
    /// It was handed to the channel asked about (and not yet by a certain route) when the reply came.
    pub through_channel: bool,
}

/// What is known of the message that a reply names; `channel` is the one that the reply may vouch for. What an earlier
/// channel pushed says nothing of it (a resumed session remembers what it was shown), nor what another route has in hand.
///
/// # Errors
/// SQLite's.
pub fn named(connection: &Connection, id: &MessageId, channel: &str) -> Result<Option<Named>> {
    let sql = "SELECT from_peer, to_peer, state < 2 AND (substr(lease, 1, 2) IS 's:' OR lease IS NULL AND pushed_by IS ?3)
               FROM message WHERE seq = ?1 AND tag = ?2";
    let read = |row: &Row<'_>| Ok(Named { from: row.get(0)?, to: row.get(1)?, through_channel: row.get(2)? });
    connection.prepare_cached(sql)?.query_row(params![id.seq, id.tag, channel], read).optional()
}

/// The channel of `pushed_by` has proved itself: what it was given needs no other route any more. How many waited.
///
/// # Errors
/// SQLite's.
pub fn trust_channel(connection: &Connection, peer: &PeerId, pushed_by: &str) -> Result<usize> {
    let sql = "UPDATE message SET waiting = 0
               WHERE to_peer = ?1 AND waiting = 1 AND state = 1 AND again = 1 AND lease IS NULL AND pushed_by = ?2";
    connection.prepare_cached(sql)?.execute(params![peer.as_str(), pushed_by])
}

/// `peer` writes to `sender`, whose messages a proven channel had pushed: they were read.
///
/// # Errors
/// SQLite's.
pub fn confirm_pushed(connection: &Connection, peer: &PeerId, sender: &PeerId, now: Timestamp) -> Result<usize> {
    let sql = "UPDATE message SET state = 2, route = 'reply', delivered_at = ?3
               WHERE to_peer = ?1 AND from_peer = ?2 AND state = 1 AND waiting = 0 AND route = 'channel'";
    connection.prepare_cached(sql)?.execute(params![peer.as_str(), sender.as_str(), now.0])
}

/// A poll of the reference's client: what the poll before it handed out has arrived; gives the next messages.
///
/// # Errors
/// SQLite's.
pub fn poll(connection: &Connection, peer: &PeerId, most: u32, now: Timestamp) -> Result<(usize, Vec<Message>)> {
    let arrived = connection
        .prepare_cached("UPDATE message SET state = 2, delivered_at = ?2 WHERE to_peer = ?1 AND state = 1 AND route = 'poll'")?
        .execute(params![peer.as_str(), now.0])?;
    let sql = format!("SELECT {COLUMNS} FROM message WHERE to_peer = ?1 AND waiting = 1 AND lease IS NULL ORDER BY seq LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let messages: Vec<Message> = statement.query_map(params![peer.as_str(), most], read)?.collect::<Result<_>>()?;
    let sql = "UPDATE message SET state = 1, route = 'poll', offered_at = ?2, waiting = 0, handed = handed + 1 WHERE seq = ?1";
    let mut mark = connection.prepare_cached(sql)?;
    for message in &messages {
        mark.execute(params![message.id.seq, now.0])?;
    }
    Ok((arrived, messages))
}

/// The message with this id.
///
/// # Errors
/// SQLite's.
pub fn get(connection: &Connection, id: &MessageId) -> Result<Option<Message>> {
    let sql = format!("SELECT {COLUMNS} FROM message WHERE seq = ?1 AND tag = ?2");
    connection.prepare_cached(&sql)?.query_row(params![id.seq, id.tag], read).optional()
}

/// Messages before `before`, newest first; with `peer`, only those from or to it.
///
/// # Errors
/// SQLite's.
pub fn history(connection: &Connection, peer: Option<&PeerId>, before: i64, most: u32) -> Result<Vec<Message>> {
    let peer = peer.map(PeerId::as_str);
    let sql = format!(
        "SELECT {COLUMNS} FROM message WHERE seq < ?1 AND (?2 IS NULL OR from_peer = ?2 OR to_peer = ?2) ORDER BY seq DESC LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map(params![before, peer, most], read)?.collect()
}

/// How many messages wait, by recipient.
///
/// # Errors
/// SQLite's.
pub fn waiting(connection: &Connection) -> Result<Vec<(String, u32)>> {
    let mut statement = connection.prepare("SELECT to_peer, count(*) FROM message WHERE waiting = 1 GROUP BY to_peer")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// How many messages are stored, at most: the distance from the oldest to the newest.
///
/// # Errors
/// SQLite's.
pub fn stored(connection: &Connection) -> Result<u64> {
    let sql = "SELECT coalesce((SELECT max(seq) FROM message) - (SELECT min(seq) FROM message) + 1, 0)";
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

/// Lets undelivered messages expire whose time has come, at most `most`; gives them with whether each still waited.
///
/// # Errors
/// SQLite's.
pub fn expire(connection: &Connection, now: Timestamp, most: u32) -> Result<Vec<(Message, bool)>> {
    let columns = COLUMNS;
    let sql = format!("SELECT {columns}, waiting FROM message WHERE state < 2 AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let due = statement
        .query_map(params![now.0, most], |row| Ok((read(row)?, row.get::<_, bool>(14)?)))?
        .collect::<Result<Vec<_>>>()?;
    let sql = "UPDATE message SET state = 3, expired_at = ?2, waiting = 0, lease = NULL WHERE seq = ?1";
    let mut mark = connection.prepare_cached(sql)?;
    for (message, _) in &due {
        mark.execute(params![message.id.seq, now.0])?;
    }
    Ok(due)
}

/// When the next undelivered message expires.
///
/// # Errors
/// SQLite's.
pub fn next_expiry(connection: &Connection) -> Result<Option<Timestamp>> {
    let sql = "SELECT min(expires_at) FROM message WHERE state < 2";
    connection.query_row(sql, [], |row| Ok(row.get::<_, Option<i64>>(0)?.map(Timestamp)))
}

/// Removes messages that ended before `before`, looking at no more than `window` rows behind `cursor`; gives the new cursor,
/// or none at the end.
///
/// # Errors
/// SQLite's.
pub fn forget_ended(connection: &Connection, before: Timestamp, cursor: i64, window: u32) -> Result<Option<i64>> {
    let sql = "SELECT max(seq), min(sent_at) FROM (SELECT seq, sent_at FROM message WHERE seq > ?1 ORDER BY seq LIMIT ?2)";
    let (last, oldest): (Option<i64>, Option<i64>) =
        connection.prepare_cached(sql)?.query_row(params![cursor, window], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some(last) = last.filter(|_| oldest.is_some_and(|sent| sent < before.0)) else { return Ok(None) };
    let sql = "DELETE FROM message WHERE seq > ?1 AND seq <= ?2 AND state >= 2 AND coalesce(delivered_at, expired_at) < ?3";
    connection.prepare_cached(sql)?.execute(params![cursor, last, before.0])?;
    Ok(Some(last))
}
