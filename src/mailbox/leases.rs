//! Who is handing a message over right now. A lease names its holder's process, so that one whose holder is gone is known
//! to be dead; `handed` is counted when the lease is given, before anything is shown.

use super::messages::{COLUMN_COUNT, COLUMNS, Message, read};
use crate::wire::PeerId;
use rusqlite::{Connection, Result, params};

/// Whether fresh mail waits for `peer` that is not in the hands of the stream `lease`: then later mail may not overtake it
/// through that stream.
pub fn has_others(connection: &Connection, peer: &PeerId, lease: &str) -> Result<bool> {
    // Three seeks in the index on (to_peer, lease), however much waits.
    let sql = "WITH fresh AS (SELECT lease FROM message WHERE to_peer = ?1 AND waiting = 1 AND again = 0 AND held_at IS NULL)
               SELECT EXISTS (SELECT 1 FROM fresh WHERE lease IS NULL)
                   OR EXISTS (SELECT 1 FROM fresh WHERE lease < ?2) OR EXISTS (SELECT 1 FROM fresh WHERE lease > ?2)";
    connection.prepare_cached(sql)?.query_row([peer.as_str(), lease], |row| row.get(0))
}

/// Leases the oldest fresh mail of `peer` to its stream, at most `most`, unless some of it is in other hands: that goes first.
/// Gives what was leased, in order.
pub fn lease_to_stream(connection: &Connection, peer: &PeerId, lease: &str, most: u32) -> Result<Vec<Message>> {
    let sql = format!(
        "UPDATE message SET lease = ?2, handed = handed + 1
         WHERE seq IN (SELECT seq FROM message WHERE to_peer = ?1 AND waiting = 1 AND again = 0 AND held_at IS NULL AND lease IS NULL
                       ORDER BY seq LIMIT ?3)
         AND NOT EXISTS (SELECT 1 FROM message WHERE to_peer = ?1 AND waiting = 1 AND again = 0 AND (lease < ?2 OR lease > ?2))
         RETURNING {COLUMNS}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut leased: Vec<Message> = statement.query_map(params![peer.as_str(), lease, most], read)?.collect::<Result<_>>()?;
    leased.sort_by_key(|message| message.id.seq()); // RETURNING promises no order
    Ok(leased)
}

/// The messages under `lease` behind `after`, in order, at most `most`.
pub fn leased(connection: &Connection, peer: &PeerId, lease: &str, after: i64, most: u32) -> Result<Vec<Message>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM message WHERE to_peer = ?1 AND waiting = 1 AND lease = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map(params![peer.as_str(), lease, after, most], read)?.collect()
}

/// Who takes mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taker {
    /// A tool's result. What was only announced waits for `check_messages`.
    Result,
    /// `check_messages`.
    Check,
    /// The writer into the inbox of this agent process, which may have been given some of it before.
    Inbox(String),
}

impl Taker {
    /// Whether it is given a message that was handed over before.
    fn takes_again(&self, again: i64, pushed_by: Option<&str>) -> bool {
        match self {
            Self::Check => true,
            Self::Result => again != 2,
            Self::Inbox(agent) => again == 0 || again == 1 && pushed_by != Some(agent),
        }
    }
}

/// Leases what waits for `peer` and may go to `taker`: oldest first, up to `max_bytes` of text, at least one, nothing that is
/// held, and nothing that would overtake fresh mail that another is handing over. The same lease gives the same messages again.
pub fn take(connection: &Connection, peer: &PeerId, lease: &str, taker: &Taker, max_bytes: usize) -> Result<Vec<Message>> {
    let again = leased(connection, peer, lease, 0, u32::MAX)?;
    if !again.is_empty() {
        return Ok(again);
    }
    let sql = format!(
        "SELECT {COLUMNS}, again, lease IS NULL, pushed_by FROM message
         WHERE to_peer = ?1 AND waiting = 1 AND held_at IS NULL ORDER BY seq"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([peer.as_str()])?;
    let (mut taken, mut bytes) = (Vec::new(), 0_usize);
    while let Some(row) = rows.next()? {
        let (again, free): (i64, bool) = (row.get(COLUMN_COUNT)?, row.get(COLUMN_COUNT + 1)?);
        let pushed_by: Option<String> = row.get(COLUMN_COUNT + 2)?;
        match (again, free) {
            (0, false) => break,
            (_, false) => continue,
            (again, true) if !taker.takes_again(again, pushed_by.as_deref()) => continue,
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
        mark.execute(params![message.id.seq(), lease])?;
        message.handed += 1;
    }
    Ok(taken)
}

/// Ends every lease on mail of `peer` but those of the process `instance`: their holders are gone, and nobody can say what they
/// showed, so the mail waits again and counts as possibly shown. How many.
pub fn lapse(connection: &Connection, peer: &PeerId, instance: &str) -> Result<usize> {
    let sql = "UPDATE message SET lease = NULL
               WHERE to_peer = ?1 AND waiting = 1 AND lease IS NOT NULL
               AND lease <> 's:' || ?2 AND substr(lease, 1, length(?2) + 3) <> 't:' || ?2 || ':'";
    connection.prepare_cached(sql)?.execute(params![peer.as_str(), instance])
}

/// Ends the leases that hooks of earlier versions took: they lasted as long as connections to a broker that is gone. How many.
pub fn end_hooks(connection: &Connection) -> Result<usize> {
    connection.execute("UPDATE message SET lease = NULL WHERE waiting = 1 AND substr(lease, 1, 2) = 'h:'", [])
}
