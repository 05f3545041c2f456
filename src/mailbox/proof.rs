//! Which inbox or channel has proved itself, and what that says about the messages it was given. A proof belongs to the agent
//! process (`PeerRow::agent_key`): a new one starts without.

use super::{InboxNews, Result, Transaction, message::read_id};
use crate::{
    db::{self, PeerRow, View, params, peers},
    wire::{MessageId, PeerId},
};

/// Written into the inbox of an agent process, and not known to be let in.
const PENDING: &str = "to_peer = ?1 AND waiting = 1 AND state = 1 AND route = 'inbox' AND again = 1 AND pushed_by = ?2";

/// The inbox or channel of `peer` has proved itself. Unless a hook proves each message, no other route repeats what it was given.
pub(super) fn prove(tx: &mut Transaction<'_>, peer: &PeerRow) -> Result<()> {
    if !peer.has_hook() {
        let sql = "UPDATE message SET waiting = 0
                   WHERE to_peer = ?1 AND waiting = 1 AND state = 1 AND again = 1 AND holder = 0 AND pushed_by = ?2";
        tx.run(sql, [peer.id.as_str(), &peer.agent_key()])?;
    }
    note(tx, peer)
}

/// Stores the proof.
pub(super) fn note(tx: &mut Transaction<'_>, peer: &PeerRow) -> Result<()> {
    peers::put_proof(tx, &peer.id, &peer.agent_key(), tx.now)?;
    tx.effects.proofs.push((peer.id.clone(), peer.agent_key(), tx.now));
    Ok(())
}

/// `peer` writes to `sender`: it has read the messages of that one which its proven inbox or channel pushed.
pub(super) fn confirm_pushed(tx: &mut Transaction<'_>, peer: &PeerId, sender: &PeerId) -> Result<()> {
    let sql = "UPDATE message SET state = 2, route = 'reply', delivered_at = ?3
               WHERE to_peer = ?1 AND from_peer = ?2 AND state = 1 AND waiting = 0 AND route IN ('inbox', 'channel')";
    for id in tx.update(sql, params![peer.as_str(), sender.as_str(), tx.now.as_millis()])? {
        tx.inbox(peer, InboxNews::LetIn(id));
    }
    Ok(())
}

/// The agent process `agent` is gone: messages in its inbox or channel that nothing confirmed may have died with it unread,
/// even if that had proved itself. They wait again, to be shown as repeats.
pub fn mark_uncertain(tx: &mut Transaction<'_>, peer: &PeerId, agent: &str) -> Result<()> {
    let sql = "UPDATE message SET waiting = 1, again = 1
               WHERE to_peer = ?1 AND state = 1 AND waiting = 0 AND route IN ('inbox', 'channel') AND pushed_by = ?2";
    tx.run(sql, [peer.as_str(), agent])?;
    tx.hint(peer);
    Ok(())
}

/// The last frame in the inbox of `agent` was not let in and is lost: its messages wait again, to be shown as repeats.
pub fn miss(tx: &mut Transaction<'_>, peer: &PeerId, agent: &str) -> Result<()> {
    let missed = tx.run(&format!("UPDATE message SET pushed_by = NULL WHERE {PENDING}"), [peer.as_str(), agent])?;
    tx.hint(peer); // results of tools may carry mail now
    tx.inbox(peer, InboxNews::Missed(missed));
    Ok(())
}

/// The messages written into the inbox of `agent` that are not known to be let in.
pub fn pending(view: &View<'_>, peer: &PeerId, agent: &str) -> db::Result<Vec<MessageId>> {
    view.all(&format!("SELECT seq, tag FROM message WHERE {PENDING}"), [peer.as_str(), agent], read_id)
}
