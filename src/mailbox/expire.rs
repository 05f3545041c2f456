//! Expires messages that were not delivered in time, and notifies their senders.

use super::{
    MessageChange, Result, Transaction,
    accept::{Controls, NewMessage, insert},
    history,
};
use crate::{
    db::{self, View, params, peers},
    wire::{BROKER_SENDER, PeerId, Timestamp},
};
use std::time::Duration;

/// Expires up to `most` undelivered messages that are past their time; returns how many. The notices to the senders expire
/// after `wait`; `tag` creates the random part of their ids.
pub fn expire(tx: &mut Transaction<'_>, wait: Duration, most: u32, tag: fn() -> String) -> Result<usize> {
    let sql = "UPDATE message SET state = 3, expired_at = ?1, waiting = 0, holder = 0, instance = NULL, lease = NULL
               WHERE seq IN (SELECT seq FROM message WHERE state < 2 AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";
    tx.update(sql, params![tx.now.as_millis(), most])?;
    let expired = tx.effects.changes.clone();
    for change in &expired {
        tx.wake(&change.to);
        tell_sender(tx, change, wait, tag())?;
    }
    Ok(expired.len())
}

/// When the next undelivered message expires.
pub fn next_expiry(view: &View<'_>) -> db::Result<Option<Timestamp>> {
    let next: Option<i64> = view.get("SELECT min(expires_at) FROM message WHERE state < 2", [])?;
    Ok(next.map(Timestamp::from_millis))
}

/// Sends a notice to the sender, if it is a peer: neither the broker nor the command line has a mailbox.
fn tell_sender(tx: &mut Transaction<'_>, expired: &MessageChange, wait: Duration, tag: String) -> Result<()> {
    let MessageChange { id, from, to, .. } = expired;
    if peers::get(tx, from)?.is_none() {
        return Ok(());
    }
    let sent_at = history::get(tx, id)?.map_or(tx.now, |message| message.receipt.sent_at);
    let name = peers::get(tx, to)?.map_or_else(|| to.to_string(), |to| to.name);
    let text = format!(
        "Message {id} to {name} ({to}), sent {sent_at}, was not delivered in time and has expired. It will not be shown to {name} any more."
    );
    let notice = NewMessage {
        reply_to: Some(id.clone()),
        ..NewMessage::new(tag, PeerId::lenient(BROKER_SENDER), from.clone(), text, tx.now, wait)
    };
    let notice = insert(tx, notice, None, Controls { passes: true, ..Controls::default() })?;
    tx.accepted(&notice, false);
    Ok(())
}
