//! Polls of legacy clients. They fetch their messages once a second; each poll proves that the previous answer arrived.

use super::{Message, Result, Transaction};
use crate::{
    db::{self, View, params},
    wire::PeerId,
};

/// Messages that the next poll hands out.
const DUE: &str = "to_peer = ?1 AND waiting = 1 AND holder = 0 AND held_at IS NULL";
/// Messages that the previous poll handed out.
const HANDED_OUT: &str = "to_peer = ?1 AND state = 1 AND route = 'poll'";

/// Whether [`poll`] would change something.
pub fn is_due(view: &View<'_>, peer: &PeerId) -> db::Result<bool> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM message WHERE {DUE}) OR EXISTS (SELECT 1 FROM message WHERE {HANDED_OUT})");
    view.get(&sql, [peer.as_str()])
}

/// How many bytes of text a poll hands out at most; a longer text comes alone.
const MOST_BYTES: i64 = 1 << 20;

/// Marks the messages of the previous poll as delivered; returns up to `most` waiting ones.
pub fn poll(tx: &mut Transaction<'_>, peer: &PeerId, most: u32) -> Result<Vec<Message>> {
    let now = tx.now.as_millis();
    tx.update(&format!("UPDATE message SET state = 2, delivered_at = ?2 WHERE {HANDED_OUT}"), params![peer.as_str(), now])?;
    let lengths = format!("SELECT octet_length(text) FROM message WHERE {DUE} ORDER BY seq LIMIT ?2");
    let lengths: Vec<i64> = tx.all(&lengths, params![peer.as_str(), most], |row| row.get(0))?;
    let sums = lengths.iter().scan(0, |sum, length| {
        *sum += length;
        Some(*sum)
    });
    let most = i64::try_from(sums.take_while(|sum| *sum <= MOST_BYTES).count().max(1)).unwrap_or(1);
    let messages = Message::all(tx, &format!("{DUE} ORDER BY seq LIMIT ?2"), params![peer.as_str(), most])?;
    for message in &messages {
        let sql =
            "UPDATE message SET state = 1, route = 'poll', offered_at = ?2, waiting = 0, handed = handed + 1 WHERE seq = ?1";
        tx.update(sql, params![message.receipt.message_id.seq(), now])?;
    }
    Ok(messages)
}
