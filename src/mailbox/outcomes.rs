//! What became of a message: pushed, announced, delivered, given back, confirmed by a reply.

use super::messages::{COLUMNS, Message, id_at, read};
use crate::wire::{MessageId, PeerId, Route, Timestamp};
use rusqlite::{Connection, OptionalExtension, Params, Result, Row, params};

/// What an acknowledgement changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// The sender of the message whose state or lease changed; none if nothing did.
    pub sender: Option<String>,
    /// By how much the number of waiting messages changed.
    pub waiting: i64,
}

impl Change {
    /// Runs an `UPDATE` of one message that gives its sender back.
    fn by(connection: &Connection, sql: &str, values: impl Params, waiting: i64) -> Result<Self> {
        let sender = connection.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?;
        Ok(Self { waiting: if sender.is_some() { waiting } else { 0 }, sender })
    }
}

/// `id` was pushed by `route`, into the inbox or the channel of the agent process `pushed_by`; if that is `trusted`, nothing
/// else will hand it over again.
pub fn offered(
    connection: &Connection,
    peer: &PeerId,
    id: &MessageId,
    route: Route,
    pushed_by: &str,
    trusted: bool,
    now: Timestamp,
) -> Result<Change> {
    let sql = "UPDATE message SET state = 1, route = ?7, offered_at = ?4, lease = NULL, pushed_by = ?5, again = 1, waiting = ?6
               WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3
               AND (state = 0 OR state = 1 AND waiting = 1 AND ?7 = 'inbox' AND substr(lease, 1, 2) = 't:') RETURNING from_peer";
    let values = params![id.seq(), id.tag(), peer.as_str(), now.as_millis(), pushed_by, !trusted, route.as_str()];
    Change::by(connection, sql, values, if trusted { -1 } else { 0 })
}

/// What was written into the inbox of `pushed_by` and was not let in is lost there: it waits again, to be shown as a repeat. How
/// many.
pub fn missed(connection: &Connection, peer: &PeerId, pushed_by: &str) -> Result<usize> {
    let sql = "UPDATE message SET pushed_by = NULL
               WHERE to_peer = ?1 AND waiting = 1 AND state = 1 AND route = 'inbox' AND again = 1 AND pushed_by = ?2";
    connection.prepare_cached(sql)?.execute(params![peer.as_str(), pushed_by])
}

/// What was written into the inbox of `pushed_by` and is not known to be let in.
pub fn pending(connection: &Connection, peer: &PeerId, pushed_by: &str) -> Result<Vec<MessageId>> {
    let sql = "SELECT seq, tag FROM message
               WHERE to_peer = ?1 AND waiting = 1 AND state = 1 AND route = 'inbox' AND again = 1 AND pushed_by = ?2";
    let id = |row: &Row<'_>| id_at(row, 0);
    connection.prepare_cached(sql)?.query_map(params![peer.as_str(), pushed_by], id)?.collect()
}

/// The client of `peer` has let `id` in, as its prompt hook shows; of a message that was only announced, its beginning.
pub fn let_in(connection: &Connection, peer: &PeerId, id: &MessageId, now: Timestamp) -> Result<Change> {
    let sql =
        "SELECT again < 2 AND (handed > 0 OR held_at IS NOT NULL) FROM message WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3";
    let whole =
        connection.prepare_cached(sql)?.query_row(params![id.seq(), id.tag(), peer.as_str()], |row| row.get(0)).optional()?;
    if whole == Some(true) { delivered(connection, peer, id, Route::Inbox, now) } else { Ok(Change::default()) }
}

/// Only the beginning of `id` was handed over, by the channel `pushed_by` if by one; its whole text has not been shown.
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
               WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3 AND state < 2 AND waiting = 1 AND substr(lease, 1, 2) = ?7
               RETURNING from_peer";
    let values = params![id.seq(), id.tag(), peer.as_str(), route.as_str(), now.as_millis(), pushed_by, holder(route)];
    Change::by(connection, sql, values, 0)
}

/// `id` was handed to the model for certain. Says so even of a message that had expired meanwhile: it is the truth.
pub fn delivered(connection: &Connection, peer: &PeerId, id: &MessageId, route: Route, now: Timestamp) -> Result<Change> {
    let waited = connection
        .prepare_cached("SELECT waiting FROM message WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3 AND state <> 2")?
        .query_row(params![id.seq(), id.tag(), peer.as_str()], |row| row.get::<_, i64>(0))
        .optional()?;
    let Some(waited) = waited else { return Ok(Change::default()) };
    let sql = "UPDATE message SET state = 2, route = ?2, delivered_at = ?3, lease = NULL, waiting = 0, held_at = NULL WHERE seq = ?1 RETURNING from_peer";
    Change::by(connection, sql, params![id.seq(), route.as_str(), now.as_millis()], -waited)
}

/// `id` was taken but not shown: it waits again as if never taken.
pub fn released(connection: &Connection, peer: &PeerId, id: &MessageId, route: Route) -> Result<Change> {
    let sql = "UPDATE message SET lease = NULL, handed = max(handed - 1, 0)
               WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3 AND waiting = 1 AND substr(lease, 1, 2) = ?4
               RETURNING from_peer";
    Change::by(connection, sql, params![id.seq(), id.tag(), peer.as_str(), holder(route)], 0)
}

/// Whose lease an acknowledgement for `route` speaks of: the stream's, or a take's. One that is said again after a crash
/// must not end the lease of another route that has the message by now.
fn holder(route: Route) -> &'static str {
    match route {
        Route::Channel => "s:",
        _ => "t:",
    }
}

/// A message that a reply names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub from: String,
    pub to: String,
    /// It was handed to the inbox or channel asked about (and not yet by a certain route) when the reply came.
    pub pushed: bool,
}

/// What is known of the message that a reply names; `agent` is the process for whose inbox or channel the reply may vouch. What an
/// earlier one was pushed says nothing of it (a resumed session remembers what it was shown), nor what another route has in hand.
pub fn named(connection: &Connection, id: &MessageId, agent: &str) -> Result<Option<Named>> {
    let sql = "SELECT from_peer, to_peer, state < 2 AND (substr(lease, 1, 2) IS 's:' OR lease IS NULL AND pushed_by IS ?3)
               FROM message WHERE seq = ?1 AND tag = ?2";
    let read = |row: &Row<'_>| Ok(Named { from: row.get(0)?, to: row.get(1)?, pushed: row.get(2)? });
    connection.prepare_cached(sql)?.query_row(params![id.seq(), id.tag(), agent], read).optional()
}

/// The inbox or channel of `pushed_by` has proved itself: what it was given needs no other route any more. How many waited.
pub fn trust(connection: &Connection, peer: &PeerId, pushed_by: &str) -> Result<usize> {
    let sql = "UPDATE message SET waiting = 0
               WHERE to_peer = ?1 AND waiting = 1 AND state = 1 AND again = 1 AND lease IS NULL AND pushed_by = ?2";
    connection.prepare_cached(sql)?.execute(params![peer.as_str(), pushed_by])
}

/// The agent process `pushed_by` is gone: what its inbox or channel was given and nothing confirmed may have died with it unread,
/// however well that had proved itself. It waits again, to be shown as a repeat. How many.
pub fn doubt_pushed(connection: &Connection, peer: &PeerId, pushed_by: &str) -> Result<usize> {
    let sql = "UPDATE message SET waiting = 1, again = 1
               WHERE to_peer = ?1 AND state = 1 AND waiting = 0 AND route IN ('inbox', 'channel') AND pushed_by = ?2";
    connection.prepare_cached(sql)?.execute(params![peer.as_str(), pushed_by])
}

/// `peer` writes to `sender`, whose messages a proven inbox or channel had pushed: they were read. Which they are.
pub fn confirm_pushed(connection: &Connection, peer: &PeerId, sender: &PeerId, now: Timestamp) -> Result<Vec<MessageId>> {
    let sql = "UPDATE message SET state = 2, route = 'reply', delivered_at = ?3
               WHERE to_peer = ?1 AND from_peer = ?2 AND state = 1 AND waiting = 0 AND route IN ('inbox', 'channel')
               RETURNING seq, tag";
    let id = |row: &Row<'_>| id_at(row, 0);
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map(params![peer.as_str(), sender.as_str(), now.as_millis()], id)?.collect()
}

/// Messages that have arrived, each with its sender.
pub type Arrived = Vec<(MessageId, String)>;

/// A poll of the reference's client: what the poll before it handed out has arrived; gives that, and the next messages.
pub fn poll(connection: &Connection, peer: &PeerId, most: u32, now: Timestamp) -> Result<(Arrived, Vec<Message>)> {
    let sql = "UPDATE message SET state = 2, delivered_at = ?2 WHERE to_peer = ?1 AND state = 1 AND route = 'poll'
               RETURNING seq, tag, from_peer";
    let mut statement = connection.prepare_cached(sql)?;
    let arrived = |row: &Row<'_>| Ok((id_at(row, 0)?, row.get(2)?));
    let arrived = statement.query_map(params![peer.as_str(), now.as_millis()], arrived)?.collect::<Result<_>>()?;
    let sql = format!(
        "SELECT {COLUMNS} FROM message WHERE to_peer = ?1 AND waiting = 1 AND lease IS NULL AND held_at IS NULL ORDER BY seq LIMIT ?2"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let messages: Vec<Message> = statement.query_map(params![peer.as_str(), most], read)?.collect::<Result<_>>()?;
    let sql = "UPDATE message SET state = 1, route = 'poll', offered_at = ?2, waiting = 0, handed = handed + 1 WHERE seq = ?1";
    let mut mark = connection.prepare_cached(sql)?;
    for message in &messages {
        mark.execute(params![message.id.seq(), now.as_millis()])?;
    }
    Ok((arrived, messages))
}
