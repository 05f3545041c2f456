//! Which inbox or channel has proved itself, and what that says about the messages it was given. A proof belongs to the agent
//! process (`PeerRow::agent_key`): a new one starts without.

use super::{Effects, InboxNews, message::read_id};
use crate::{
    db::{
        Result, Tx, View, params,
        peers::{self, PeerRow},
    },
    wire::{MessageId, PeerId, Timestamp},
};

/// Written into the inbox of an agent process, and not known to be let in.
const PENDING: &str = "to_peer = ?1 AND waiting = 1 AND state = 1 AND route = 'inbox' AND again = 1 AND pushed_by = ?2";

/// The inbox or channel of `peer` has proved itself. Without a hook that proves each message, what it was given needs no other
/// route.
pub(super) fn prove(tx: &Tx<'_>, peer: &PeerRow, now: Timestamp, effects: &mut Effects) -> Result<()> {
    if !peer.has_hook() {
        let sql = "UPDATE message SET waiting = 0
                   WHERE to_peer = ?1 AND waiting = 1 AND state = 1 AND again = 1 AND holder = 0 AND pushed_by = ?2";
        tx.run(sql, [peer.id.as_str(), &peer.agent_key()])?;
    }
    note(tx, peer, now, effects)
}

/// Stores the proof.
pub(super) fn note(tx: &Tx<'_>, peer: &PeerRow, now: Timestamp, effects: &mut Effects) -> Result<()> {
    peers::put_proof(tx, &peer.id, &peer.agent_key(), now)?;
    effects.proofs.push((peer.id.clone(), peer.agent_key(), now));
    Ok(())
}

/// `peer` writes to `sender`, whose messages a proven inbox or channel had pushed: they were read.
pub(super) fn confirm_pushed(tx: &Tx<'_>, peer: &PeerId, sender: &PeerId, now: Timestamp, effects: &mut Effects) -> Result<()> {
    let sql = "UPDATE message SET state = 2, route = 'reply', delivered_at = ?3
               WHERE to_peer = ?1 AND from_peer = ?2 AND state = 1 AND waiting = 0 AND route IN ('inbox', 'channel')";
    for id in effects.update(tx, sql, params![peer.as_str(), sender.as_str(), now.as_millis()])? {
        effects.inbox(peer, InboxNews::LetIn(id));
    }
    Ok(())
}

/// The agent process `agent` is gone: what its inbox or channel was given and nothing confirmed may have died with it unread,
/// even if that had proved itself. It waits again, to be shown as a repeat.
pub fn mark_uncertain(tx: &Tx<'_>, peer: &PeerId, agent: &str) -> Result<Effects> {
    let sql = "UPDATE message SET waiting = 1, again = 1
               WHERE to_peer = ?1 AND state = 1 AND waiting = 0 AND route IN ('inbox', 'channel') AND pushed_by = ?2";
    tx.run(sql, [peer.as_str(), agent])?;
    Ok(Effects::hinting(peer))
}

/// The last frame in the inbox of `agent` was not let in and is lost: its messages wait again, to be shown as repeats.
pub fn miss(tx: &Tx<'_>, peer: &PeerId, agent: &str) -> Result<Effects> {
    let missed = tx.run(&format!("UPDATE message SET pushed_by = NULL WHERE {PENDING}"), [peer.as_str(), agent])?;
    let mut effects = Effects::hinting(peer); // results of tools may carry mail now
    effects.inbox(peer, InboxNews::Missed(missed));
    Ok(effects)
}

/// The messages written into the inbox of `agent` that are not known to be let in.
pub fn pending(view: &View<'_>, peer: &PeerId, agent: &str) -> Result<Vec<MessageId>> {
    view.all(&format!("SELECT seq, tag FROM message WHERE {PENDING}"), [peer.as_str(), agent], read_id)
}
