//! Stored messages: receipts, counts, the history and its cleanup.

use super::{Message, message::read_peer};
use crate::{
    db::{Result, Tx, View, params},
    wire::{MessageId, PeerId, Timestamp},
};
use std::collections::HashMap;

/// The message with this id.
pub fn get(view: &View<'_>, id: &MessageId) -> Result<Option<Message>> {
    Message::one(view, "seq = ?1 AND tag = ?2", params![id.seq(), id.tag()])
}

/// The message with this number.
pub fn numbered(view: &View<'_>, seq: i64) -> Result<Option<Message>> {
    Message::one(view, "seq = ?1", [seq])
}

/// Messages before the place `before`, newest first. With `peers`, only messages from or to one of them.
pub fn list(view: &View<'_>, peers: Option<&[PeerId]>, before: i64, most: u32) -> Result<Vec<Message>> {
    // Ids contain only plain letters and need no escapes.
    let peers = peers.map(|peers| format!("[{}]", peers.iter().map(|id| format!("\"{id}\"")).collect::<Vec<_>>().join(",")));
    let condition = "seq < ?1 AND (?2 IS NULL OR from_peer IN (SELECT value FROM json_each(?2))
                         OR to_peer IN (SELECT value FROM json_each(?2))) ORDER BY seq DESC LIMIT ?3";
    Message::all(view, condition, params![before, peers, most])
}

/// The first message from `from` to `to` that names `question`.
pub fn answer(view: &View<'_>, question: &MessageId, from: &PeerId, to: &PeerId) -> Result<Option<Message>> {
    // `seq` limits the search to messages after the question.
    let condition = "seq > ?1 AND reply_to = ?2 AND from_peer = ?3 AND to_peer = ?4 ORDER BY seq LIMIT 1";
    Message::one(view, condition, params![question.seq(), question.to_string(), from.as_str(), to.as_str()])
}

/// An upper bound on the number of stored messages: the distance from the oldest to the newest.
pub fn stored(view: &View<'_>) -> Result<u64> {
    let sql = "SELECT coalesce((SELECT max(seq) FROM message) - (SELECT min(seq) FROM message) + 1, 0)";
    view.get::<i64>(sql, []).map(i64::unsigned_abs)
}

/// How many messages wait for `peer`.
pub fn waiting(view: &View<'_>, peer: &PeerId) -> Result<u32> {
    view.get("SELECT count(*) FROM message WHERE to_peer = ?1 AND waiting = 1", [peer.as_str()])
}

/// How many messages wait for `peer`, if they are `most` or more. The first and the last of them bound their number, and an index
/// finds both at once, while a count of a long backlog would cost more than storing a message.
pub fn waiting_from(view: &View<'_>, peer: &PeerId, most: u32) -> Result<Option<u32>> {
    let sql = "SELECT (SELECT max(seq) FROM message WHERE to_peer = ?1 AND waiting = 1)
                    - (SELECT min(seq) FROM message WHERE to_peer = ?1 AND waiting = 1) + 1";
    let span = view.get::<Option<i64>>(sql, [peer.as_str()])?.unwrap_or_default();
    let waiting = if span < i64::from(most) { None } else { Some(waiting(view, peer)?) };
    Ok(waiting.filter(|waiting| *waiting >= most))
}

/// Whether messages wait for `peer`.
pub fn is_waiting(view: &View<'_>, peer: &PeerId) -> Result<bool> {
    view.get("SELECT EXISTS (SELECT 1 FROM message WHERE to_peer = ?1 AND waiting = 1)", [peer.as_str()])
}

/// The number of waiting messages for each peer that has any.
pub fn waiting_by_peer(view: &View<'_>) -> Result<HashMap<PeerId, u32>> {
    let sql = "SELECT to_peer, count(*) FROM message WHERE waiting = 1 GROUP BY to_peer";
    let counts = view.all(sql, [], |row| Ok((read_peer(row, 0)?, row.get(1)?)))?;
    Ok(counts.into_iter().collect())
}

/// How many messages wait for all peers together. The command line has no mailbox and does not count.
pub fn waiting_in_all(view: &View<'_>) -> Result<u64> {
    let sql = "SELECT count(*) FROM peer CROSS JOIN message ON to_peer = peer.id AND waiting = 1";
    view.get::<i64>(sql, []).map(i64::unsigned_abs)
}

/// Removes messages that ended before `before`. Looks at no more than `window` rows after `cursor`. Returns the new cursor, or
/// `None` at the end.
pub fn forget_ended(tx: &Tx<'_>, before: Timestamp, cursor: i64, window: u32) -> Result<Option<i64>> {
    let sql = "SELECT max(seq), min(sent_at) FROM (SELECT seq, sent_at FROM message WHERE seq > ?1 ORDER BY seq LIMIT ?2)";
    let bounds: Option<(Option<i64>, Option<i64>)> =
        tx.one(sql, params![cursor, window], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((Some(last), _)) = bounds.filter(|(_, oldest)| *oldest < Some(before.as_millis())) else { return Ok(None) };
    let sql = "DELETE FROM message WHERE seq > ?1 AND seq <= ?2 AND state >= 2 AND coalesce(delivered_at, expired_at) < ?3";
    tx.run(sql, params![cursor, last, before.as_millis()])?;
    Ok(Some(last))
}
