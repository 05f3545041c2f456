//! A peer's event stream: the connection that shows that the peer is alive, and brings it events at once.
//!
//! The stream reads its leased messages from the table, by cursor; a wake-up only means "look again". When the stream is dropped
//! for any reason, the peer is no longer connected. If another process displaces the stream's process, the old stream stays open
//! beside the new one. It reports the displacement once, and the end of the new stream. So if a client runs two servers, one of
//! them always serves the session.

use super::{containers::check_room, core::Broker};
use crate::{
    db::{Durability, peers},
    mailbox::{
        Holder, history,
        lease::{self, Claim, Taker},
    },
    platform::clock,
    wire::{self, Event, Inbound, PeerId, Route},
};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;

/// How many messages are read from the table at a time. Bounds the memory of a stream to a slow client.
const BATCH: u32 = 16;

#[derive(Debug)]
pub struct Stream {
    broker: Arc<Broker>,
    peer: PeerId,
    instance: String,
    number: u64,
    after: i64,
    phase: Phase,
    buffer: VecDeque<Inbound>,
    wake: watch::Receiver<u64>,
}

/// What the stream has reported to the client so far.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Opened,
    /// Another process serves the session now.
    Displaced {
        /// Whether that process has opened its stream.
        successor_seen: bool,
    },
    Ended,
}

/// The next step, which follows from the peer in memory.
enum Step {
    Tell(Event),
    /// Push the messages that the stream has leased. `leases`: also lease new ones. `hints`: if none are pushed, tell the client
    /// that some wait for another route.
    Serve {
        leases: bool,
        hints: bool,
    },
    Wait,
    /// The session has ended, the peer has a newer stream, or its process serves another peer now.
    Close,
}

impl Broker {
    /// Opens the event stream of a peer. `after` is the place of the newest message that its process has already written into
    /// its channel; leased messages after that place are sent again.
    pub fn open_stream(self: &Arc<Self>, id: &PeerId, after: i64) -> wire::Result<Stream> {
        let number = {
            let mut roster = self.roster();
            if let Some(container) = roster.peers.get(id).and_then(|peer| peer.row.container.as_deref()) {
                check_room(&roster, container, Some(id))?;
            }
            roster.next_stream()
        };
        let (instance, wake) = self.with_peer(id, |peer| {
            (peer.stream, peer.row.ended, peer.hint) = (Some(number), false, true);
            peer.wake(); // an older stream of this peer closes
            (peer.row.instance.clone(), peer.wake.subscribe())
        })?;
        self.changes.hint();
        tracing::info!(peer = %id, "{} is connected", self.roster().called(id));
        let (broker, peer, buffer) = (self.clone(), id.clone(), VecDeque::new());
        Ok(Stream { broker, peer, instance, number, after, phase: Phase::Opened, buffer, wake })
    }
}

impl Stream {
    /// The next event for the client, until the stream ends. Cancel-safe: an event that was not returned is returned later.
    pub async fn next(&mut self) -> wire::Result<Option<Event>> {
        loop {
            self.wake.mark_unchanged();
            match self.step() {
                Step::Tell(event) => return Ok(Some(event)),
                Step::Close => return Ok(None),
                Step::Wait => {}
                Step::Serve { leases, hints } => {
                    if let Some(message) = self.next_message(leases).await? {
                        return Ok(Some(Event::Message(message.into())));
                    }
                    if hints && self.take_hint()? {
                        return Ok(Some(Event::Waiting));
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.broker.stopped() => return Ok(None),
                changed = self.wake.changed() => if changed.is_err() { return Ok(None) },
            }
        }
    }

    fn step(&mut self) -> Step {
        let roster = self.broker.roster();
        let Some(peer) = roster.peers.get(&self.peer).filter(|peer| !peer.row.instance.is_empty()) else { return Step::Close };
        let is_ours = peer.row.instance == self.instance;
        let (phase, step) = match self.phase {
            Phase::Ended => return Step::Close,
            // Even if another route has precedence now, the stream pushes the messages that it has leased: no other route gets
            // them. A call that waits for a message is a certain route and takes precedence over the channel.
            _ if is_ours && peer.stream == Some(self.number) => {
                let leases = peer.takers == 0 && peer.route().0 == Route::Channel;
                return Step::Serve { leases, hints: peer.hint };
            }
            _ if is_ours && peer.row.ended && peer.stream.is_none() => (Phase::Ended, Step::Tell(Event::Ended)),
            _ if is_ours => return Step::Close,
            Phase::Displaced { successor_seen: true } if peer.stream.is_none() => (Phase::Ended, Step::Tell(Event::Ended)),
            Phase::Displaced { successor_seen } => {
                (Phase::Displaced { successor_seen: successor_seen || peer.stream.is_some() }, Step::Wait)
            }
            _ => (Phase::Displaced { successor_seen: peer.stream.is_some() }, Step::Tell(Event::Displaced)),
        };
        self.phase = phase;
        step
    }

    /// The next message leased to this stream. With `leases`, it also leases waiting messages without a holder.
    async fn next_message(&mut self, leases: bool) -> wire::Result<Option<Inbound>> {
        if self.buffer.is_empty() {
            let holder = Holder::Stream { instance: self.instance.clone() };
            let leased = self.broker.store.glance(|view| lease::leased(view, &self.peer, &holder, self.after, BATCH))?;
            let mut batch = self.broker.inbound(leased);
            if batch.is_empty() && leases {
                // Uses the result of the lease, not the cursor: messages that another route released may lie before the cursor.
                let claim = Claim {
                    peer: self.peer.clone(),
                    holder,
                    taker: Taker::Stream,
                    messages: BATCH,
                    bytes: usize::MAX,
                    is_outdated: Arc::default(),
                };
                batch = self.broker.lease(claim).await?.map_or_else(Vec::new, |(leased, _)| leased);
            }
            if let Some(last) = batch.last() {
                self.after = self.after.max(last.id.seq());
            }
            self.buffer = batch.into();
        }
        Ok(self.buffer.pop_front())
    }

    /// Whether to tell the client that messages wait.
    fn take_hint(&self) -> wire::Result<bool> {
        let hints = self.broker.with_peer(&self.peer, |peer| std::mem::take(&mut peer.hint)).unwrap_or_default();
        Ok(hints && self.broker.store.glance(|view| history::is_waiting(view, &self.peer))?)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut roster = self.broker.roster();
        let Some(peer) = roster.peers.get_mut(&self.peer).filter(|peer| peer.stream == Some(self.number)) else { return };
        let now = clock::now();
        (peer.stream, peer.row.last_seen) = (None, now);
        peer.wake(); // lets a displaced stream see that its successor is gone
        let name = roster.called(&self.peer);
        drop(roster);
        self.broker.changes.hint();
        tracing::info!(peer = %self.peer, "{name} has disconnected");
        if *self.broker.stopping.borrow() {
            return; // the store is about to close, and every peer will reconnect
        }
        let (broker, id) = (self.broker.clone(), self.peer.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let peer = id.clone();
                let job = broker.commit(Durability::Process, move |tx| Ok(peers::seen(tx, &peer, now)?));
                if let Err(error) = job.await {
                    tracing::debug!(peer = %id, %error, "noting its last sign of life failed: {error}");
                }
            });
        }
    }
}
