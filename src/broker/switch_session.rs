//! `/resume` and `/clear` change the session id under a process that goes on; its hook tells.

use super::{core::Broker, names, roster::Roster};
use crate::{
    db::{
        Durability,
        peers::{self, PeerRow},
    },
    mailbox::lease,
    platform::clock,
    wire::{self, PeerId, Status, Timestamp},
};
use std::{sync::Arc, time::Duration};

impl Broker {
    /// The process that serves `id` has switched to the conversation `session`, as its hook says; returns the peer that it serves
    /// from now on. An unknown conversation (`/clear`, a branch) becomes that peer's. One that runs elsewhere stays there. If its
    /// peer is gone (`/resume`), the process becomes that peer, which has its mailbox back; the peer that it was is gone.
    pub(super) async fn switch_session(self: &Arc<Self>, session: String, id: PeerId) -> wire::Result<PeerId> {
        let other = self.roster().sessions.get(&session).cloned();
        if other.as_ref() == Some(&id) {
            return Ok(id);
        }
        self.look(Duration::ZERO, |peer| Some(&peer.row.id) == other.as_ref()).await;
        let now = clock::now();
        let moved = {
            let mut roster = self.roster();
            match roster.sessions.get(&session).cloned() {
                None => {
                    roster.sessions.insert(session.clone(), id.clone());
                    None
                }
                Some(other) if other == id => return Ok(id),
                Some(other) => match move_process(&mut roster, &id, &other, now) {
                    None => return Ok(id),
                    moved => moved,
                },
            }
        };
        let Some((left, taken)) = moved else {
            let peer = id.clone();
            self.commit(Durability::Fsync, move |tx| Ok(peers::put_session(tx, &session, &peer, now)?)).await?;
            return Ok(id);
        };
        let other = taken.id.clone();
        let job = self.commit(Durability::Fsync, move |tx| {
            peers::put(tx, &left)?;
            peers::put(tx, &taken)?;
            lease::end_leases(tx, &left.id, &left.instance)
        });
        job.await?;
        self.changes.hint();
        tracing::info!(peer = %other, before = %id, "a session has switched to another conversation");
        Ok(other)
    }
}

/// Makes the process that serves `from` serve `to`, unless that one is there; returns the rows of both. The process sees its
/// stream end and registers again, with the secret that it has.
fn move_process(roster: &mut Roster, from: &PeerId, to: &PeerId, now: Timestamp) -> Option<(PeerRow, PeerRow)> {
    let to = roster.peers.get(to).filter(|peer| peer.status(now) == Status::Gone)?.row.clone();
    let from = roster.peers.get_mut(from)?;
    let serving = from.row.clone();
    from.cut_off();
    let left = PeerRow {
        secret: None,
        instance: String::new(),
        process: None,
        agent: None,
        inbox: None,
        hook_token: None,
        last_seen: now,
        ended: true,
        ..serving.clone()
    };
    roster.put(left.clone());
    let taken = PeerRow {
        name: names::free(roster, &to.name, &to.id, now),
        id: to.id,
        proved: to.proved,
        summary: to.summary,
        summary_source: to.summary_source,
        registered_at: to.registered_at,
        last_seen: now,
        ended: false,
        ..serving
    };
    roster.put(taken.clone());
    Some((left, taken))
}
