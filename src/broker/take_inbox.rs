//! Hands waiting messages to the writer into a client's inbox, frame by frame.

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
    /// Leases what waits for the caller to its MCP server, which writes it into the inbox as one frame a sender; waits until
    /// there is something and the inbox is ready for it.
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
                Gate::Closed => None,
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

    /// The present agent process of `id`, and whether a frame may be written into its inbox.
    fn gate(&self, id: &PeerId) -> wire::Result<(String, Gate)> {
        self.with_peer(id, |peer| {
            // A call that waits for a message is a certain route: it goes before the inbox.
            let is_closed = peer.route().0 != Route::Inbox || peer.takers > 0;
            let gate = if is_closed { Gate::Closed } else { peer.inbox.gate(peer.row.has_hook(), Instant::now()) };
            (peer.row.agent_key(), gate)
        })
    }

    /// Learns from the table what was written into the inbox and not let in, after this broker has started.
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

    /// Stores a new rule for what `id` lets in, and applies it to waiting messages.
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
