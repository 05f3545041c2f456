//! Proofs that an inbox or channel works, and their effect on the messages pushed into it. A proof belongs to the agent process
//! (`PeerRow::agent_key`); a new process starts without one.

use super::{InboxNews, Result, Transaction, message::read_id};
use crate::{
    db::{self, PeerRow, View, params, peers},
    wire::{MessageId, PeerId},
};

/// Messages written into the inbox of an agent process but not confirmed as let in.
const PENDING: &str = "to_peer = ?1 AND waiting = 1 AND route = 'inbox' AND again = 1 AND pushed_by = ?2";

/// Records that the inbox or channel of `peer` has proved itself. Unless a hook proves each message, no other route then repeats
/// the messages pushed into it. A call that has taken some of them keeps them no longer: it must not give them back.
pub(super) fn prove(tx: &mut Transaction<'_>, peer: &PeerRow) -> Result<()> {
    if !peer.confirms_each() {
        let sql = "UPDATE message SET waiting = 0, holder = 0, instance = NULL, lease = NULL
                   WHERE to_peer = ?1 AND waiting = 1 AND again = 1 AND pushed_by = ?2";
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

/// Marks messages from `sender` as delivered if a proven inbox or channel pushed them: by writing to `sender`, `peer` shows that
/// it has read them.
pub(super) fn confirm_pushed(tx: &mut Transaction<'_>, peer: &PeerId, sender: &PeerId) -> Result<()> {
    let sql = "UPDATE message SET state = 2, route = 'reply', delivered_at = ?3
               WHERE to_peer = ?1 AND from_peer = ?2 AND state = 1 AND waiting = 0";
    for id in tx.update(sql, params![peer.as_str(), sender.as_str(), tx.now.as_millis()])? {
        tx.inbox(peer, InboxNews::LetIn(id));
    }
    Ok(())
}

/// Makes the unconfirmed messages of earlier agent processes of `peer` wait again; they are shown as repeats. They may have been lost
/// unread in an inbox or channel, even if that had proved itself.
pub(super) fn mark_uncertain(tx: &Transaction<'_>, peer: &PeerRow) -> Result<()> {
    let sql = "UPDATE message SET waiting = 1
               WHERE to_peer = ?1 AND state = 1 AND pushed_by <> ?2";
    tx.run(sql, [peer.id.as_str(), &peer.agent_key()])?;
    Ok(())
}

/// Records that the last frame in the inbox of `agent` was not let in and is lost. Its messages wait again and are shown as
/// repeats.
pub fn miss(tx: &mut Transaction<'_>, peer: &PeerId, agent: &str) -> Result<()> {
    let missed = tx.run(&format!("UPDATE message SET pushed_by = NULL WHERE {PENDING}"), [peer.as_str(), agent])?;
    tx.hint(peer); // tool results may now carry messages
    tx.inbox(peer, InboxNews::Missed(missed));
    Ok(())
}

/// The messages written into the inbox of `agent` but not confirmed as let in.
pub fn pending(view: &View<'_>, peer: &PeerId, agent: &str) -> db::Result<Vec<MessageId>> {
    view.all(&format!("SELECT seq, tag FROM message WHERE {PENDING}"), [peer.as_str(), agent], read_id)
}
