//! Leases messages to the holder that hands them over. The same commit increments `handed`, before anything is shown.

use super::{Holder, Message, Result, Transaction, message::COLUMNS, order};
use crate::{
    db::{self, PeerRow, View, params},
    wire::{HOOK_LEASE, PeerId},
};
use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// The kind of taker, which decides which messages it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taker {
    /// The stream, which pushes fresh messages into the channel.
    Stream,
    /// A tool's result: everything except announced messages, which wait for `check_messages`.
    Result,
    /// `check_messages`: everything.
    Check,
    /// The writer into the inbox of this agent process: only messages that this process was not given before.
    Inbox(String),
}

/// A request for a lease.
#[derive(Debug, Clone)]
pub struct Claim {
    pub peer: PeerId,
    pub holder: Holder,
    pub taker: Taker,
    /// The maximum number of messages.
    pub messages: u32,
    /// The maximum size of the texts. The first message is given regardless of its size.
    pub bytes: usize,
    /// Set when the client repeats its request under the same lease. Then only the new request gets messages.
    pub is_outdated: Arc<AtomicBool>,
}

/// Leases the waiting messages that may go to the holder, oldest first. A repeated take gets the same messages.
pub fn lease(tx: &Transaction<'_>, claim: &Claim) -> Result<Vec<Message>> {
    // Checked on the writing thread, in order with all other changes. A request whose answer nobody reads must not lease a
    // message after the newer request has found none.
    if claim.is_outdated.load(Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    if claim.taker != Taker::Stream {
        let before = leased(tx, &claim.peer, &claim.holder, 0, u32::MAX)?;
        if !before.is_empty() {
            return Ok(before);
        }
    }
    let mut leased = free(tx, claim)?;
    let holder = &claim.holder;
    let sql = "UPDATE message SET holder = ?2, instance = ?3, lease = ?4, handed = handed + 1 WHERE seq = ?1";
    for message in &mut leased {
        tx.run(sql, params![message.receipt.message_id.seq(), holder.kind(), holder.instance(), holder.lease()])?;
        message.handed += 1;
    }
    Ok(leased)
}

/// Whether [`lease`] would return any message.
pub fn is_any(view: &View<'_>, claim: &Claim) -> db::Result<bool> {
    let has_some = claim.taker != Taker::Stream && !leased(view, &claim.peer, &claim.holder, 0, 1)?.is_empty();
    Ok(has_some || !free(view, &Claim { messages: 1, ..claim.clone() })?.is_empty())
}

/// The messages after the place `after` that `holder` has leased, in order.
pub fn leased(view: &View<'_>, peer: &PeerId, holder: &Holder, after: i64, most: u32) -> db::Result<Vec<Message>> {
    let condition = "to_peer = ?1 AND waiting = 1 AND instance = ?2 AND lease IS ?3 AND seq > ?4 ORDER BY seq LIMIT ?5";
    let values = params![peer.as_str(), holder.instance(), holder.lease(), after, most];
    Message::all(view, condition, values)
}

/// The messages without a holder that this claim may lease.
fn free(view: &View<'_>, claim: &Claim) -> db::Result<Vec<Message>> {
    let Claim { peer, holder, taker, messages, bytes: most_bytes, .. } = claim;
    let (fits, agent) = match taker {
        Taker::Stream => ("again = 0", None),
        Taker::Result => ("again <> 2", None),
        Taker::Check => ("again IN (0, 1, 2)", None),
        Taker::Inbox(agent) => ("(again = 0 OR again = 1 AND pushed_by IS NOT ?3)", Some(agent)),
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM message
         WHERE to_peer = ?1 AND waiting = 1 AND held_at IS NULL AND holder = 0 AND seq < ?2 AND {fits} AND ?3 IS ?3 ORDER BY seq LIMIT ?4"
    );
    let (mut free, mut bytes): (Vec<Message>, usize) = (Vec::new(), 0);
    view.walk(&sql, params![peer.as_str(), order::barrier(view, peer, holder)?, agent, messages], |row| {
        let message = Message::read(row)?;
        bytes = bytes.saturating_add(message.text.len());
        if !free.is_empty() && bytes > *most_bytes {
            return Ok(ControlFlow::Break(()));
        }
        free.push(message);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(free)
}

/// Moves the waiting messages of `from`, which nobody has been shown, to `to`.
pub fn move_waiting(tx: &mut Transaction<'_>, from: &PeerId, to: &PeerId) -> Result<()> {
    let sql = "UPDATE message SET to_peer = ?2 WHERE to_peer = ?1 AND waiting = 1 AND state = 0 AND holder = 0";
    tx.run(sql, [from.as_str(), to.as_str()])?;
    tx.hint(to);
    Ok(())
}

/// Ends the leases of the hooks of `peer`. Their messages wait again and count as possibly shown.
pub fn end_hooks_leases(tx: &mut Transaction<'_>, peer: &PeerId) -> Result<()> {
    let sql = "UPDATE message SET holder = 0, instance = NULL, lease = NULL
               WHERE to_peer = ?1 AND waiting = 1 AND lease LIKE ?2 || '%'";
    if tx.run(sql, [peer.as_str(), HOOK_LEASE])? > 0 {
        tx.hint(peer);
    }
    Ok(())
}

/// Ends all leases on messages to `peer`, except those of the process that serves it: the other holders are gone. They may or may not
/// have shown the messages, so these wait again and count as possibly shown.
pub(super) fn end_leases(tx: &Transaction<'_>, peer: &PeerRow) -> Result<()> {
    let sql = "UPDATE message SET holder = 0, instance = NULL, lease = NULL
               WHERE to_peer = ?1 AND waiting = 1 AND instance <> ?2";
    tx.run(sql, [peer.id.as_str(), &peer.instance])?;
    Ok(())
}
