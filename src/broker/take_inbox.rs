//! Hands waiting messages, frame by frame, to the MCP server that writes them into its client's inbox.

use super::{
    core::Broker,
    inbox::{Gate, Inbox},
    take::Taking,
};
use crate::{
    db::{Durability, peers},
    mailbox::{
        lease::{Claim, Taker},
        proof,
        release::apply_rule,
    },
    wire::{self, Inbound, InboundRule, PeerId, Route, Take, Taken},
};
use std::sync::Arc;
use tokio::time::Instant;

impl Broker {
    /// Leases the caller's waiting messages to its MCP server, which writes them into the inbox, one frame per sender. Waits
    /// until there are messages and the inbox is ready for them.
    pub(super) async fn take_for_inbox(self: &Arc<Self>, request: &Take, mut taking: Taking) -> wire::Result<Taken> {
        let id = taking.claim.peer.clone();
        if let Some(inbound) = request.inbound {
            self.set_inbound(&id, inbound).await?;
        }
        self.recall(&id).await?;
        if request.idle {
            self.with_peer(&id, |peer| peer.inbox.idles())?;
        }
        loop {
            self.post_held(&id).await?;
            self.look_for_users(|peer| peer.row.id == id && !peer.attended.is_there()).await; // a send has looked, too
            let (agent, gate) = self.gate(&id)?;
            let at = match gate {
                Gate::Missed => {
                    let peer = id.clone();
                    self.commit(Durability::Fsync, move |tx| proof::miss(tx, &peer, &agent)).await?;
                    continue;
                }
                Gate::Open => {
                    let claim = Claim { taker: Taker::Inbox(agent), ..taking.claim.clone() };
                    if let Some((messages, more)) = self.lease(claim).await? {
                        return self.answer_inbox(&id, messages, more);
                    }
                    None
                }
                Gate::Until(at) => Some(at),
                Gate::Closed => self.looks_again(&id)?,
            };
            if self.with_peer(&id, |peer| !peer.inbox.held.is_empty())? || !taking.waits(self, at).await? {
                return self.answer_inbox(&id, Vec::new(), 0);
            }
        }
    }

    fn answer_inbox(&self, id: &PeerId, messages: Vec<Inbound>, more: u32) -> wire::Result<Taken> {
        self.with_peer(id, |peer| {
            let inbox = &mut peer.inbox;
            Taken { messages, more, pending: inbox.is_pending(), held: std::mem::take(&mut inbox.held) }
        })
    }

    /// The current agent process of `id`, and whether a frame may be written into its inbox.
    fn gate(&self, id: &PeerId) -> wire::Result<(String, Gate)> {
        self.with_peer(id, |peer| {
            // A call that waits for a message is a certain route and takes precedence over the inbox.
            let is_closed = peer.route().0 != Route::Inbox || peer.takers > 0;
            let gate = if is_closed {
                Gate::Closed
            } else {
                peer.inbox.gate(peer.row.confirms_each(), peer.row.door.is_some(), Instant::now())
            };
            (peer.row.agent_key(), gate)
        })
    }

    /// After a restart of the broker, restores from the table which messages were written into the inbox but not let in.
    async fn recall(&self, id: &PeerId) -> wire::Result<()> {
        let agent = self.with_peer(id, |peer| peer.row.agent_key())?;
        if self.with_peer(id, |peer| peer.inbox.agent == agent)? {
            return Ok(());
        }
        let (peer, key) = (id.clone(), agent.clone());
        let pending = self.store.read(move |view| proof::pending(view, &peer, &key)).await?;
        self.with_peer(id, |peer| {
            if peer.inbox.agent != agent {
                peer.inbox = Inbox::of(agent, pending);
            }
        })
    }

    /// Stores a new inbound rule for `id` and applies it to waiting messages.
    async fn set_inbound(self: &Arc<Self>, id: &PeerId, inbound: InboundRule) -> wire::Result<()> {
        if self.with_peer(id, |peer| peer.row.inbound == inbound)? {
            return Ok(());
        }
        let peer = id.clone();
        let job = self.commit(Durability::Fsync, move |tx| {
            let row = peers::change(tx, &peer, |row| row.inbound = inbound)?;
            row.map_or(Ok(()), |row| apply_rule(tx, &row))
        });
        job.await?;
        self.with_peer(id, |peer| {
            peer.row.inbound = inbound;
            peer.wake();
        })
    }
}
