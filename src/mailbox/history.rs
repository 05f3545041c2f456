//! What was said before, and its end: expiry of what was not delivered, removal of what ended long ago.

use super::messages::{COLUMN_COUNT, COLUMNS, Message, read};
use crate::wire::{PeerId, Timestamp};
use rusqlite::{Connection, Result, params};

/// Messages before `before`, newest first; with `peers`, only those from or to one of them.
pub fn history(connection: &Connection, peers: Option<&[PeerId]>, before: i64, most: u32) -> Result<Vec<Message>> {
    // Ids are plain letters: nothing in them needs an escape.
    let peers = peers.map(|peers| format!("[{}]", peers.iter().map(|id| format!("\"{id}\"")).collect::<Vec<_>>().join(",")));
    let sql = format!(
        "WITH meant AS (SELECT value FROM json_each(coalesce(?2, '[]')))
         SELECT {COLUMNS} FROM message WHERE seq < ?1 AND (?2 IS NULL OR from_peer IN meant OR to_peer IN meant)
         ORDER BY seq DESC LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map(params![before, peers, most], read)?.collect()
}

/// How many messages are stored, at most: the distance from the oldest to the newest.
pub fn stored(connection: &Connection) -> Result<u64> {
    let sql = "SELECT coalesce((SELECT max(seq) FROM message) - (SELECT min(seq) FROM message) + 1, 0)";
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

/// Lets undelivered messages expire whose time has come, at most `most`; gives them with whether each still waited.
pub fn expire(connection: &Connection, now: Timestamp, most: u32) -> Result<Vec<(Message, bool)>> {
    let columns = COLUMNS;
    let sql = format!("SELECT {columns}, waiting FROM message WHERE state < 2 AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let due = statement
        .query_map(params![now.as_millis(), most], |row| Ok((read(row)?, row.get::<_, bool>(COLUMN_COUNT)?)))?
        .collect::<Result<Vec<_>>>()?;
    let sql = "UPDATE message SET state = 3, expired_at = ?2, waiting = 0, lease = NULL WHERE seq = ?1";
    let mut mark = connection.prepare_cached(sql)?;
    for (message, _) in &due {
        mark.execute(params![message.id.seq(), now.as_millis()])?;
    }
    Ok(due)
}

/// When the next undelivered message expires.
pub fn next_expiry(connection: &Connection) -> Result<Option<Timestamp>> {
    let sql = "SELECT min(expires_at) FROM message WHERE state < 2";
    connection.query_row(sql, [], |row| Ok(row.get::<_, Option<i64>>(0)?.map(Timestamp::from_millis)))
}

/// Removes messages that ended before `before`, looking at no more than `window` rows behind `cursor`; gives the new cursor,
/// or none at the end.
pub fn forget_ended(connection: &Connection, before: Timestamp, cursor: i64, window: u32) -> Result<Option<i64>> {
    let sql = "SELECT max(seq), min(sent_at) FROM (SELECT seq, sent_at FROM message WHERE seq > ?1 ORDER BY seq LIMIT ?2)";
    let (last, oldest): (Option<i64>, Option<i64>) =
        connection.prepare_cached(sql)?.query_row(params![cursor, window], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some(last) = last.filter(|_| oldest.is_some_and(|sent| sent < before.as_millis())) else { return Ok(None) };
    let sql = "DELETE FROM message WHERE seq > ?1 AND seq <= ?2 AND state >= 2 AND coalesce(delivered_at, expired_at) < ?3";
    connection.prepare_cached(sql)?.execute(params![cursor, last, before.as_millis()])?;
    Ok(Some(last))
}
