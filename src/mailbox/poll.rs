//! A legacy client fetches its mail once a second; the next poll shows that the answer to the one before arrived.

use super::{
    Effects, Message,
    message::{COLUMNS, read},
};
use crate::{
    db::{Result, Tx, View, params},
    wire::{PeerId, Timestamp},
};

/// Mail that a poll hands out.
const DUE: &str = "to_peer = ?1 AND waiting = 1 AND holder = 0 AND held_at IS NULL";
/// Mail that the poll before handed out.
const HANDED_OUT: &str = "to_peer = ?1 AND state = 1 AND route = 'poll'";

/// Whether [`poll`] would change something.
pub fn is_due(view: &View<'_>, peer: &PeerId) -> Result<bool> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM message WHERE {DUE}) OR EXISTS (SELECT 1 FROM message WHERE {HANDED_OUT})");
    view.get(&sql, [peer.as_str()])
}

/// Marks the messages of the poll before as delivered; returns the next ones, at most `most`.
pub fn poll(tx: &Tx<'_>, peer: &PeerId, most: u32, now: Timestamp) -> Result<(Vec<Message>, Effects)> {
    let mut effects = Effects::default();
    let sql = format!("UPDATE message SET state = 2, delivered_at = ?2 WHERE {HANDED_OUT}");
    effects.update(tx, &sql, params![peer.as_str(), now.as_millis()])?;
    let sql = format!("SELECT {COLUMNS} FROM message WHERE {DUE} ORDER BY seq LIMIT ?2");
    let messages = tx.all(&sql, params![peer.as_str(), most], read)?;
    for message in &messages {
        let sql =
            "UPDATE message SET state = 1, route = 'poll', offered_at = ?2, waiting = 0, handed = handed + 1 WHERE seq = ?1";
        effects.update(tx, sql, params![message.receipt.message_id.seq(), now.as_millis()])?;
    }
    Ok((messages, effects))
}
