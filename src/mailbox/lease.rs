//! A message is leased to whoever hands it over. `handed` is raised in the same commit, before anything is shown.

use super::{
    Effects, Holder, Message,
    message::{COLUMNS, read},
    order,
};
use crate::{
    db::{Result, Tx, View, params},
    wire::PeerId,
};
use std::ops::ControlFlow;

/// The kind of a holder, which decides what it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taker {
    /// The stream, which pushes fresh mail into the channel.
    Stream,
    /// A tool's result: all but what was only announced, which waits for `check_messages`.
    Result,
    /// `check_messages`: everything.
    Check,
    /// The writer into the inbox of this agent process: not what that one was given before.
    Inbox(String),
}

/// How much is leased at once: so many messages, so many bytes of text, and at least one.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    pub messages: u32,
    pub bytes: usize,
}

/// Leases what waits for `peer` and may go to `holder`, oldest first. The same lease gives the same messages again.
pub fn lease(tx: &Tx<'_>, peer: &PeerId, holder: &Holder, taker: &Taker, most: Most) -> Result<(Vec<Message>, Effects)> {
    if *taker != Taker::Stream {
        let before = leased(tx, peer, holder, 0, u32::MAX)?;
        if !before.is_empty() {
            return Ok((before, Effects::default()));
        }
    }
    let mut leased = free(tx, peer, holder, taker, most)?;
    let sql = "UPDATE message SET holder = ?2, instance = ?3, lease = ?4, handed = handed + 1 WHERE seq = ?1";
    for message in &mut leased {
        tx.run(sql, params![message.receipt.message_id.seq(), holder.kind(), holder.instance(), holder.lease()])?;
        message.handed += 1;
    }
    Ok((leased, Effects::default()))
}

/// Whether [`lease`] would give something.
pub fn is_any(view: &View<'_>, peer: &PeerId, holder: &Holder, taker: &Taker) -> Result<bool> {
    Ok(!leased(view, peer, holder, 0, 1)?.is_empty() || is_any_free(view, peer, holder, taker)?)
}

/// Whether [`lease`] would give something that nobody has in hand.
pub fn is_any_free(view: &View<'_>, peer: &PeerId, holder: &Holder, taker: &Taker) -> Result<bool> {
    Ok(!free(view, peer, holder, taker, Most { messages: 1, bytes: 0 })?.is_empty())
}

/// The messages in the hands of `holder` behind `after`, in order.
pub fn leased(view: &View<'_>, peer: &PeerId, holder: &Holder, after: i64, most: u32) -> Result<Vec<Message>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM message
         WHERE to_peer = ?1 AND waiting = 1 AND holder = ?2 AND instance = ?3 AND lease IS ?4 AND seq > ?5 ORDER BY seq LIMIT ?6"
    );
    let values = params![peer.as_str(), holder.kind(), holder.instance(), holder.lease(), after, most];
    view.all(&sql, values, read)
}

/// The messages that nobody holds and that may go to `holder`.
fn free(view: &View<'_>, peer: &PeerId, holder: &Holder, taker: &Taker, most: Most) -> Result<Vec<Message>> {
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
    view.walk(&sql, params![peer.as_str(), order::barrier(view, peer, holder)?, agent, most.messages], |row| {
        let message = read(row)?;
        bytes = bytes.saturating_add(message.text.len());
        if !free.is_empty() && bytes > most.bytes {
            return Ok(ControlFlow::Break(()));
        }
        free.push(message);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(free)
}

/// Ends every lease on mail of `peer` but those of the process `instance`: their holders are gone. It is not known what they
/// showed, so the mail waits again and counts as possibly shown.
pub fn end_leases(tx: &Tx<'_>, peer: &PeerId, instance: &str) -> Result<Effects> {
    let sql = "UPDATE message SET holder = 0, instance = NULL, lease = NULL
               WHERE to_peer = ?1 AND waiting = 1 AND holder > 0 AND instance IS NOT ?2";
    tx.run(sql, [peer.as_str(), instance])?;
    Ok(Effects::hinting(peer))
}
