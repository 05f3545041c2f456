//! Who is handing a message over right now. A lease names its holder's process, so that one whose holder is gone is known
//! to be dead; `handed` is counted when the lease is given, before anything is shown.

use super::messages::{COLUMNS, Message, read};
use crate::wire::PeerId;
use rusqlite::{Connection, Result, params};

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

/// Whether mail waits for `peer` that is in nobody's hands and that a route without room for all of it may hand over.
///
/// # Errors
/// SQLite's.
pub fn has_fresh(connection: &Connection, peer: &PeerId) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM message WHERE to_peer = ?1 AND waiting = 1 AND again < 2 AND lease IS NULL)";
    connection.prepare_cached(sql)?.query_row([peer.as_str()], |row| row.get(0))
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

/// Ends every lease on mail of `peer` but those of the process `instance` and of hooks: their holders are gone, and nobody can
/// say what they showed, so the mail waits again and counts as possibly shown. How many.
///
/// # Errors
/// SQLite's.
pub fn lapse(connection: &Connection, peer: &PeerId, instance: &str) -> Result<usize> {
    let sql = "UPDATE message SET lease = NULL
               WHERE to_peer = ?1 AND waiting = 1 AND lease IS NOT NULL
               AND lease <> 's:' || ?2 AND substr(lease, 1, length(?2) + 3) <> 't:' || ?2 || ':' AND substr(lease, 1, 2) <> 'h:'";
    connection.prepare_cached(sql)?.execute(params![peer.as_str(), instance])
}

/// Ends a hook's lease on mail of `peer`: it is gone without saying what it showed. How many.
///
/// # Errors
/// SQLite's.
pub fn let_go(connection: &Connection, peer: &PeerId, lease: &str) -> Result<usize> {
    let sql = "UPDATE message SET lease = NULL WHERE to_peer = ?1 AND waiting = 1 AND lease = ?2";
    connection.prepare_cached(sql)?.execute([peer.as_str(), lease])
}

/// Ends the leases of all hooks: they lasted as long as connections to a broker that is gone. How many.
///
/// # Errors
/// SQLite's.
pub fn let_go_of_hooks(connection: &Connection) -> Result<usize> {
    connection.execute("UPDATE message SET lease = NULL WHERE waiting = 1 AND substr(lease, 1, 2) = 'h:'", [])
}
