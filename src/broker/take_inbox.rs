//! Hands waiting messages to the writer into a client's inbox, frame by frame.

use super::{
    core::{Broker, stopping, unknown_peer},
    inbox::{Gate, Inbox},
    take::Asking,
};
use crate::{
    db::peers,
    mailbox::{lease::Taker, proof, release::apply_rule},
    platform::clock,
    wire::{self, Inbound, InboundRule, PeerId, Route, Take, Taken},
};
use std::sync::Arc;
use tokio::time::Instant;

/// The next step, by the peer in memory.
enum Look {
    Write { agent: String },
    Wait(Option<Instant>),
    Missed { agent: String },
}

impl Broker {
    /// Leases what waits for the caller to its MCP server, which writes it into the inbox as one frame a sender; waits until
    /// there is something and the inbox is ready for it.
    pub(super) async fn take_for_inbox(self: &Arc<Self>, request: &Take, asking: Asking) -> wire::Result<Taken> {
        let Asking { id, holder, most, deadline: until, mut wake } = asking;
        if let Some(inbound) = request.inbound {
            self.set_inbound(&id, inbound).await?;
        }
        self.recall(&id).await?;
        if request.idle
            && let Some(peer) = self.roster().peers.get_mut(&id)
        {
            peer.inbox.idles();
        }
        loop {
            wake.mark_unchanged();
            self.post_held(&id).await?;
            let at = match self.look_at_inbox(&id)? {
                Look::Missed { agent } => {
                    let peer = id.clone();
                    self.commit(move |tx| Ok(((), proof::miss(tx, &peer, &agent)?))).await?;
                    continue;
                }
                Look::Write { agent } => {
                    let taken = self.lease(&id, &holder, Taker::Inbox(agent), most).await?;
                    if let Some((messages, more)) = taken {
                        return self.answer_inbox(&id, messages, more);
                    }
                    None
                }
                Look::Wait(at) => at,
            };
            if Instant::now() >= until || self.roster().peers.get(&id).is_some_and(|peer| !peer.inbox.held.is_empty()) {
                return self.answer_inbox(&id, Vec::new(), 0);
            }
            tokio::select! {
                biased;
                () = self.stopped() => return Err(stopping()),
                () = tokio::time::sleep_until(at.unwrap_or(until).min(until)) => {}
                changed = wake.changed() => drop(changed),
            }
        }
    }

    fn answer_inbox(&self, id: &PeerId, messages: Vec<Inbound>, more: u32) -> wire::Result<Taken> {
        let mut roster = self.roster();
        let peer = roster.peers.get_mut(id).ok_or_else(|| unknown_peer(id))?;
        Ok(Taken { messages, more, pending: peer.inbox.is_pending(), held: std::mem::take(&mut peer.inbox.held) })
    }

    fn look_at_inbox(&self, id: &PeerId) -> wire::Result<Look> {
        let roster = self.roster();
        let peer = roster.peers.get(id).ok_or_else(|| unknown_peer(id))?;
        // A call that waits for a message is a certain route: it goes before the inbox.
        if peer.route().0 != Route::Inbox || peer.takers > 0 {
            return Ok(Look::Wait(None));
        }
        let agent = peer.row.agent_key();
        Ok(match peer.inbox.gate(peer.row.has_hook(), Instant::now()) {
            Gate::Open => Look::Write { agent },
            Gate::Until(at) => Look::Wait(Some(at)),
            Gate::Missed => Look::Missed { agent },
        })
    }

    /// Learns from the table what was written into the inbox and not let in, after this broker has started.
    async fn recall(&self, id: &PeerId) -> wire::Result<()> {
        let agent = match self.roster().peers.get(id) {
            Some(peer) if peer.inbox.agent != peer.row.agent_key() => peer.row.agent_key(),
            _ => return Ok(()),
        };
        let (peer, key) = (id.clone(), agent.clone());
        let pending = self.store.read(move |view| proof::pending(view, &peer, &key)).await?;
        if let Some(peer) = self.roster().peers.get_mut(id).filter(|peer| peer.inbox.agent != agent) {
            peer.inbox = Inbox::of(agent);
            if !pending.is_empty() {
                peer.inbox.wrote(pending);
            }
        }
        Ok(())
    }

    /// Stores a new rule for what `id` lets in, and applies it to waiting messages.
    async fn set_inbound(self: &Arc<Self>, id: &PeerId, inbound: InboundRule) -> wire::Result<()> {
        if self.roster().peers.get(id).ok_or_else(|| unknown_peer(id))?.row.inbound == inbound {
            return Ok(());
        }
        let (peer, now) = (id.clone(), clock::now());
        self.commit(move |tx| {
            let row = peers::change(tx, &peer, |row| row.inbound = inbound)?;
            Ok(((), row.map(|row| apply_rule(tx, &row, now)).transpose()?.unwrap_or_default()))
        })
        .await?;
        if let Some(peer) = self.roster().peers.get_mut(id) {
            peer.row.inbound = inbound;
            peer.wake();
        }
        Ok(())
    }
}
