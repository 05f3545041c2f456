//! `/resume` and `/clear` change the session id under a process that goes on; its hook tells.

use super::{core::Broker, names, roster::Roster};
use crate::{
    db::peers::{self, PeerRow},
    mailbox::{Effects, lease},
    platform::clock,
    wire::{self, PeerId, Status, Timestamp},
};
use std::{sync::Arc, time::Duration};

/// The result of a switch to a conversation.
enum Switch {
    /// No change.
    Stay,
    /// The conversation was unknown: it is this peer's.
    New,
    /// The process leaves one peer and serves another from now on: the rows of both.
    Move(Box<[PeerRow; 2]>),
}

impl Broker {
    /// The process that serves `id` has switched to the conversation `session`, as its hook says; returns whose process it is
    /// from now on. An unknown conversation (`/clear`, a branch) is that peer's, and one that runs elsewhere stays where it runs.
    /// With one of a peer that is gone (`/resume`) the process is that peer, which has its mailbox back; the one it was is gone.
    pub(super) async fn switch_session(self: &Arc<Self>, session: String, id: PeerId) -> wire::Result<PeerId> {
        let other = self.roster().sessions.get(&session).cloned();
        if other.as_ref() == Some(&id) {
            return Ok(id);
        }
        self.look(Duration::ZERO, |peer| Some(&peer.row.id) == other.as_ref()).await;
        let now = clock::now();
        let switch = {
            let mut roster = self.roster();
            match roster.sessions.get(&session).cloned() {
                None => {
                    roster.sessions.insert(session.clone(), id.clone());
                    Switch::New
                }
                Some(other) if other == id => Switch::Stay,
                Some(other) => move_process(&mut roster, &id, &other, now).map_or(Switch::Stay, Switch::Move),
            }
        };
        match switch {
            Switch::Stay => Ok(id),
            Switch::New => {
                let peer = id.clone();
                self.commit(move |tx| Ok((peers::put_session(tx, &session, &peer, now)?, Effects::default()))).await?;
                Ok(id)
            }
            Switch::Move(rows) => {
                let other = rows[1].id.clone();
                self.commit(move |tx| {
                    let [left, taken] = &*rows;
                    peers::put(tx, left)?;
                    peers::put(tx, taken)?;
                    Ok(((), lease::end_leases(tx, &left.id, &left.instance)?))
                })
                .await?;
                self.changes.hint();
                tracing::info!(peer = %other, before = %id, "a session has switched to another conversation");
                Ok(other)
            }
        }
    }
}

/// Makes the process that serves `from` serve `to`, unless that one is there. The process sees its stream end and registers
/// again, with the secret that it has.
fn move_process(roster: &mut Roster, from: &PeerId, to: &PeerId, now: Timestamp) -> Option<Box<[PeerRow; 2]>> {
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
    Some(Box::new([left, taken]))
}
