//! Mail to and from peers of other machines, which a gateway carries. On the machine of its sender such a message goes
//! `queued → forwarded → offered → delivered`; the later states are those that the recipient's machine reports.
//!
//! A message to another machine is taken without a lease: to forward it twice does no harm, because it has the same id both times
//! and the other broker takes it once. It waits until it is acknowledged as forwarded, or its receipt has come back.
//!
//! A message from another machine has its id there as its key, and remembers which state that machine was told last.

use super::{
    Message, Result, Transaction, acknowledge, expire, history,
    link::{INCOMING, WAITS},
    message::{COLUMNS, read_peer},
};
use crate::{
    db::{self, View, params},
    wire::{MachineName, MessageId, MessageState, PeerId, RemoteReceipt, Route, Told},
};
use std::{ops::ControlFlow, time::Duration};

/// The most messages and the most receipts that are taken at once.
const MOST: u32 = 256;
/// The size of the texts that are taken at once, in bytes, unless a single one is larger.
const MOST_BYTES: usize = 1024 * 1024;

/// The messages that wait to be forwarded, oldest first.
pub fn outgoing(view: &View<'_>) -> db::Result<Vec<Message>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM message INDEXED BY message_link WHERE link > 0 AND link = {WAITS} AND waiting = 1 ORDER BY seq LIMIT {MOST}"
    );
    let (mut outgoing, mut bytes) = (Vec::new(), 0_usize);
    view.walk(&sql, [], |row| {
        let message = Message::read(row)?;
        bytes = bytes.saturating_add(message.text.len());
        if bytes > MOST_BYTES && !outgoing.is_empty() {
            return Ok(ControlFlow::Break(()));
        }
        outgoing.push(message);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(outgoing)
}

/// The messages from other machines whose state has changed since those were told, each with its id there.
pub fn untold(view: &View<'_>) -> db::Result<Vec<(Message, MessageId)>> {
    let sql = format!(
        "SELECT {COLUMNS}, key FROM message INDEXED BY message_link
         WHERE link > 0 AND link >= {INCOMING} AND link <> {INCOMING} + state ORDER BY seq LIMIT {MOST}"
    );
    let read = |row: &db::Row<'_>| {
        let there = row.get_ref(17)?.as_str_or_null()?.and_then(|key| key.parse().ok());
        Message::read(row).map(|message| there.map(|there| (message, there)))
    };
    Ok(view.all(&sql, [], read)?.into_iter().flatten().collect())
}

/// How the message that `message` names is named on `machine`: by its id there if it came from there, or else by its id here if the same
/// sender wrote it to there.
pub fn named_there(
    view: &View<'_>,
    machine: &MachineName,
    message: &Message,
) -> db::Result<(Option<MessageId>, Option<MessageId>)> {
    let Some(named) = &message.receipt.reply_to else { return Ok((None, None)) };
    if let Some(there) = id_there(view, machine, named)? {
        return Ok((Some(there), None));
    }
    let earlier = history::get(view, named)?.map(|earlier| earlier.receipt);
    let went_there =
        earlier.filter(|earlier| earlier.from == message.receipt.from && MachineName::of(&earlier.to).as_ref() == Some(machine));
    Ok((None, went_there.map(|earlier| earlier.message_id)))
}

/// The id here of the message from `sender` that has the id `there` on its machine.
pub fn id_here(view: &View<'_>, sender: &PeerId, there: &MessageId) -> db::Result<Option<MessageId>> {
    let message = Message::one(view, "from_peer = ?1 AND key = ?2", [sender.as_str(), &there.to_string()])?;
    Ok(message.map(|message| message.receipt.message_id))
}

/// The id that the message `id` has on `machine`, if it came from there.
fn id_there(view: &View<'_>, machine: &MachineName, id: &MessageId) -> db::Result<Option<MessageId>> {
    let sql = "SELECT key FROM message JOIN peer ON peer.id = from_peer WHERE seq = ?1 AND tag = ?2 AND machine = ?3";
    let key: Option<Option<String>> = view.one(sql, params![id.seq(), id.tag(), machine.as_str()], |row| row.get(0))?;
    Ok(key.flatten().and_then(|key| key.parse().ok()))
}

/// Records that these messages are stored on their way to another machine. Returns how many changed.
pub fn forward(tx: &mut Transaction<'_>, messages: &[MessageId]) -> Result<u32> {
    let mut forwarded = 0;
    for id in messages {
        let values = params![id.seq(), id.tag(), tx.now.as_millis(), WAITS];
        let sql = "UPDATE message SET waiting = 0, link = -?3, handed = handed + 1
                   WHERE seq = ?1 AND tag = ?2 AND link = ?4 AND waiting = 1";
        if tx.update(sql, values)?.is_empty() {
            // Its receipt was here first, or it has expired: only the time is missing.
            tx.run("UPDATE message SET link = -?3 WHERE seq = ?1 AND tag = ?2 AND link = ?4", values)?;
        } else {
            forwarded += 1;
        }
    }
    Ok(forwarded)
}

/// Records that other machines will be told these states. Returns how many messages changed.
pub fn tell(tx: &Transaction<'_>, receipts: &[Told]) -> Result<u32> {
    let sql = "UPDATE message SET link = iif(?3 = 2, 0, ?4 + ?3) WHERE seq = ?1 AND tag = ?2 AND link >= ?4 AND link <> ?4 + ?3";
    let tell = |changed, Told { id, state }: &Told| match number(*state) {
        Some(state) => Ok(changed + u32::from(tx.run(sql, params![id.seq(), id.tag(), state, INCOMING])? > 0)),
        None => Ok(changed),
    };
    receipts.iter().try_fold(0, tell)
}

/// Applies what `machine` reports of messages to its peers; receipts for other messages are ignored. Returns how many changed.
/// Notices to senders expire after `wait`; `tag` creates the random part of their ids.
pub fn confirm(
    tx: &mut Transaction<'_>,
    machine: &MachineName,
    receipts: Vec<RemoteReceipt>,
    wait: Duration,
    tag: fn() -> String,
) -> Result<u32> {
    let mut changed = 0;
    for receipt in receipts {
        changed += u32::from(confirm_one(tx, machine, receipt, wait, tag)?);
    }
    Ok(changed)
}

fn confirm_one(
    tx: &mut Transaction<'_>,
    machine: &MachineName,
    RemoteReceipt { id, state, route, refusal }: RemoteReceipt,
    wait: Duration,
    tag: fn() -> String,
) -> Result<bool> {
    let sql = "SELECT to_peer FROM message JOIN peer ON peer.id = to_peer WHERE seq = ?1 AND tag = ?2 AND machine = ?3";
    let to = tx.one(sql, params![id.seq(), id.tag(), machine.as_str()], |row| read_peer(row, 0))?;
    let Some(to) = to else { return Ok(false) };
    match state {
        MessageState::Offered => {
            let sql = "UPDATE message SET state = 1, route = ?3, offered_at = ?4, waiting = 0
                       WHERE seq = ?1 AND tag = ?2 AND state = 0";
            let changed = tx.update(sql, params![id.seq(), id.tag(), route.map(Route::as_str), tx.now.as_millis()])?;
            Ok(!changed.is_empty())
        }
        MessageState::Delivered => acknowledge::deliver(tx, &to, &id, route.unwrap_or(Route::Link)),
        MessageState::Expired => expire::expire_one(tx, &id, refusal, wait, tag),
        MessageState::Queued | MessageState::Forwarded | MessageState::Held => Ok(false),
    }
}

/// The number of a state that other machines are told, in the column `state`.
fn number(state: MessageState) -> Option<i64> {
    match state {
        MessageState::Offered => Some(1),
        MessageState::Delivered => Some(2),
        MessageState::Expired => Some(3),
        MessageState::Queued | MessageState::Forwarded | MessageState::Held => None,
    }
}
