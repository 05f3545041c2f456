//! Mail that is not delivered in time expires, and its sender is told.

use super::{
    Effects, MessageChange,
    accept::{Controls, NewMessage, insert},
    history,
};
use crate::{
    db::{Result, Tx, View, params, peers},
    wire::{BROKER_SENDER, PeerId, Timestamp},
};

/// Lets undelivered messages expire whose time has come, at most `most`; returns how many. The senders' notices wait until
/// `until`; `tag` makes the random part of their ids.
pub fn expire(tx: &Tx<'_>, now: Timestamp, until: Timestamp, most: u32, tag: fn() -> String) -> Result<(usize, Effects)> {
    let mut effects = Effects::default();
    let sql = "UPDATE message SET state = 3, expired_at = ?1, waiting = 0, holder = 0, instance = NULL, lease = NULL
               WHERE seq IN (SELECT seq FROM message WHERE state < 2 AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";
    let expired = effects.update(tx, sql, params![now.as_millis(), most])?;
    for change in effects.changes.clone() {
        effects.wake.insert(change.to.clone());
        tell_sender(tx, &change, now, until, tag, &mut effects)?;
    }
    Ok((expired.len(), effects))
}

/// When the next undelivered message expires.
pub fn next_expiry(view: &View<'_>) -> Result<Option<Timestamp>> {
    let next: Option<i64> = view.get("SELECT min(expires_at) FROM message WHERE state < 2", [])?;
    Ok(next.map(Timestamp::from_millis))
}

/// Notices are not answered by notices, and the command line has no mailbox.
fn tell_sender(
    tx: &Tx<'_>,
    expired: &MessageChange,
    now: Timestamp,
    until: Timestamp,
    tag: fn() -> String,
    effects: &mut Effects,
) -> Result<()> {
    let MessageChange { id, from, to, .. } = expired;
    if from.as_str() == BROKER_SENDER || peers::get(tx, from)?.is_none() {
        return Ok(());
    }
    let sent_at = history::get(tx, id)?.map_or(now, |message| message.receipt.sent_at);
    let name = peers::get(tx, to)?.map_or_else(|| to.to_string(), |to| to.name);
    let text = format!(
        "Message {id} to {name} ({to}), sent {sent_at}, was not delivered in time and has expired. It will not be shown to {name} any more."
    );
    let notice = NewMessage {
        tag: tag(),
        from: PeerId::lenient(BROKER_SENDER),
        to: from.clone(),
        text,
        reply_to: Some(id.clone()),
        key: None,
        sent_at: now,
        expires_at: until,
        stream: None,
        for_cli_inside: false,
    };
    let notice = insert(tx, &notice, None, Controls { passes: true, ..Controls::default() })?;
    effects.accepted(&notice, false);
    Ok(())
}
