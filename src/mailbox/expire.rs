//! Expires messages that were not delivered in time, and notifies their senders.

use super::{
    MessageChange, Result, Transaction,
    accept::{Controls, NewMessage, insert},
    history,
};
use crate::{
    db::{self, View, params, peers},
    wire::{BROKER_SENDER, MessageId, PeerId, Timestamp, text::printable_line},
};
use std::time::Duration;

/// The longest reason that a notice repeats, in characters.
const LONGEST_REFUSAL: usize = 300;

/// Expires up to `most` undelivered messages that are past their time; returns how many. The notices to the senders expire
/// after `wait`; `tag` creates the random part of their ids.
pub fn expire(tx: &mut Transaction<'_>, wait: Duration, most: u32, tag: fn() -> String) -> Result<usize> {
    let sql = "UPDATE message SET state = 3, expired_at = ?1, waiting = 0, holder = 0, instance = NULL, lease = NULL
               WHERE seq IN (SELECT seq FROM message WHERE state < 2 AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";
    tx.update(sql, params![tx.now.as_millis(), most])?;
    let expired = tx.effects.changes.clone();
    for change in &expired {
        tell_sender(tx, change, None, wait, tag())?;
    }
    Ok(expired.len())
}

/// Expires the message `id`, because the machine of its recipient has reported so, with the reason of a `refusal`. Returns whether it
/// was still under way.
pub(super) fn expire_one(
    tx: &mut Transaction<'_>,
    id: &MessageId,
    refusal: Option<String>,
    wait: Duration,
    tag: fn() -> String,
) -> Result<bool> {
    let before = tx.effects.changes.len();
    let sql = "UPDATE message SET state = 3, expired_at = ?3, waiting = 0 WHERE seq = ?1 AND tag = ?2 AND state < 2";
    tx.update(sql, params![id.seq(), id.tag(), tx.now.as_millis()])?;
    let Some(change) = tx.effects.changes.get(before).cloned() else { return Ok(false) };
    tell_sender(tx, &change, refusal, wait, tag())?;
    Ok(true)
}

/// When the next undelivered message expires.
pub fn next_expiry(view: &View<'_>) -> db::Result<Option<Timestamp>> {
    let next: Option<i64> = view.get("SELECT min(expires_at) FROM message WHERE state < 2", [])?;
    Ok(next.map(Timestamp::from_millis))
}

/// Sends a notice to the sender, if it is a peer of this machine: neither the broker nor the command line has a mailbox, and a peer
/// of another machine gets its notice there.
fn tell_sender(
    tx: &mut Transaction<'_>,
    expired: &MessageChange,
    refusal: Option<String>,
    wait: Duration,
    tag: String,
) -> Result<()> {
    let MessageChange { id, from, to, .. } = expired;
    if peers::get(tx, from)?.is_none_or(|sender| sender.machine.is_some()) {
        return Ok(());
    }
    let sent_at = history::get(tx, id)?.map_or(tx.now, |message| message.receipt.sent_at);
    let recipient = peers::get(tx, to)?;
    let is_elsewhere = recipient.as_ref().is_some_and(|to| to.machine.is_some());
    let name = recipient.map_or_else(|| to.to_string(), |to| to.name);
    let message = format!("Message {id} to {name} ({to}), sent {sent_at}");
    let text = match refusal {
        Some(refusal) => {
            // The words of another machine, in a notice of the broker.
            let refusal: String = printable_line(&refusal).chars().take(LONGEST_REFUSAL).collect();
            format!("{message}, was not accepted on the other machine: {refusal}. It will not be shown to {name}.")
        }
        None if is_elsewhere => {
            format!("{message}, has expired: the other machine has not reported in time that it was delivered.")
        }
        None => format!("{message}, was not delivered in time and has expired. It will not be shown to {name} any more."),
    };
    let notice = NewMessage {
        reply_to: Some(id.clone()),
        ..NewMessage::new(tag, PeerId::lenient(BROKER_SENDER), from.clone(), text, tx.now, wait)
    };
    let notice = insert(tx, notice, None, Controls { passes: true, ..Controls::default() })?;
    tx.accepted(&notice, false);
    Ok(())
}
