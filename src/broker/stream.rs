//! A peer's event stream: the connection that shows it is alive, and through which it is told at once.
//!
//! The stream reads what is leased to it from the table, by cursor: a wake-up only says "look again". When it is dropped,
//! whatever the reason, the peer is not connected any more. One whose process another has displaced stays open beside that
//! one's, is told once, and is told again when that one ends: a session whose client runs two servers is never without.

use super::core::{Broker, unknown_peer};
use crate::{
    db::peers,
    mailbox::{
        Effects, Holder, Message, history,
        lease::{self, Most, Taker},
    },
    platform::clock,
    wire::{self, Event, Inbound, PeerId, Route, Timestamp},
};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;

/// How many messages are read from the table at a time: bounds the memory of a stream to a slow client.
const BATCH: u32 = 16;

/// An item of a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamItem {
    /// The stream is open: the peer counts as connected.
    Ready,
    /// An event for the client.
    Event(Event),
}

/// An open event stream of a peer.
#[derive(Debug)]
pub struct Stream {
    broker: Arc<Broker>,
    peer: PeerId,
    instance: String,
    number: u64,
    after: i64,
    ready: bool,
    displaced: Option<Successor>,
    told_end: bool,
    buffer: VecDeque<Inbound>,
    wake: watch::Receiver<u64>,
}

/// The process that displaced a stream's: the client of the stream knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Successor {
    /// It has registered; its stream is not seen yet.
    Coming,
    /// Its stream has been seen open.
    There,
}

/// The next step, by the peer in memory.
enum Look {
    /// Another process is this session now.
    Displaced,
    /// It still is: nothing goes through here.
    Aside,
    /// The session has ended, or the process that was it instead of this one.
    Ended,
    /// The peer has a newer stream, said goodbye, or is forgotten.
    Over,
    /// Go on; `push` says whether messages go through here, `lease` whether it may take more into its hands, `hint` whether
    /// the client is to be told that some wait for another route.
    On { push: bool, lease: bool, hint: bool },
}

impl Broker {
    /// Opens the event stream of a peer. `after` is the place of the newest message that its process has already written
    /// into its channel; what is leased to it behind that is given again.
    pub fn open_stream(self: &Arc<Self>, id: &PeerId, after: i64) -> wire::Result<Stream> {
        let mut roster = self.roster();
        let number = roster.next_stream();
        let peer = roster.peers.get_mut(id).ok_or_else(|| unknown_peer(id))?;
        peer.stream = Some(number);
        peer.row.ended = false;
        peer.hint = true;
        peer.wake(); // an older stream of this peer sees that it is not wanted any more
        let (instance, wake) = (peer.row.instance.clone(), peer.wake.subscribe());
        self.changes.hint();
        tracing::info!(peer = %id, "connected");
        let broker = self.clone();
        let (ready, displaced, told_end, buffer) = (false, None, false, VecDeque::new());
        Ok(Stream { broker, peer: id.clone(), instance, number, after, ready, displaced, told_end, buffer, wake })
    }
}

impl Stream {
    /// The next thing to tell the client; none when the stream is over. Cancel-safe: what was not returned is given later.
    pub async fn next(&mut self) -> wire::Result<Option<StreamItem>> {
        if !self.ready {
            self.ready = true;
            return Ok(Some(StreamItem::Ready));
        }
        loop {
            self.wake.mark_unchanged();
            let (push, lease, hint) = match self.look() {
                Look::Displaced => return Ok(Some(StreamItem::Event(Event::Displaced))),
                Look::Aside => (false, false, false),
                // Told once; after that the stream is over.
                Look::Ended if !std::mem::replace(&mut self.told_end, true) => {
                    return Ok(Some(StreamItem::Event(Event::Ended)));
                }
                Look::Ended | Look::Over => return Ok(None),
                Look::On { push, lease, hint } => (push, lease, hint),
            };
            if push && let Some(message) = self.next_message(lease).await? {
                return Ok(Some(StreamItem::Event(Event::Message(message))));
            }
            if hint && self.take_hint()? {
                return Ok(Some(StreamItem::Event(Event::Waiting)));
            }
            tokio::select! {
                biased;
                () = self.broker.stopped() => return Ok(None),
                changed = self.wake.changed() => if changed.is_err() { return Ok(None) },
            }
        }
    }

    fn look(&mut self) -> Look {
        let roster = self.broker.roster();
        let Some(peer) = roster.peers.get(&self.peer) else { return Look::Over };
        if peer.row.instance.is_empty() {
            return Look::Over; // its process serves another peer now, and comes back as that
        }
        if peer.row.instance != self.instance {
            let told = self.displaced.is_some();
            if peer.stream.is_some() {
                self.displaced = Some(Successor::There);
            }
            return match *self.displaced.get_or_insert(Successor::Coming) {
                _ if !told => Look::Displaced,
                Successor::There if peer.stream.is_none() => Look::Ended,
                _ => Look::Aside,
            };
        }
        if peer.stream != Some(self.number) {
            return if peer.row.ended && peer.stream.is_none() { Look::Ended } else { Look::Over };
        }
        // A call that waits for a message is a certain route: it goes before the channel. The stream still pushes what it holds.
        Look::On { push: peer.route().0 == Route::Channel, lease: peer.takers == 0, hint: peer.hint }
    }

    /// The next message leased to this stream; if it `may_lease`, it takes what waits and is in no other hands.
    async fn next_message(&mut self, may_lease: bool) -> wire::Result<Option<Inbound>> {
        if self.buffer.is_empty() {
            let holder = Holder::Stream { instance: self.instance.clone() };
            let mut batch = self.broker.store.glance(|view| lease::leased(view, &self.peer, &holder, self.after, BATCH))?;
            if batch.is_empty() && may_lease {
                batch = self.lease(holder).await?;
            }
            if let Some(last) = batch.last() {
                self.after = self.after.max(last.receipt.message_id.seq());
            }
            self.buffer = self.broker.inbound(batch).into();
        }
        Ok(self.buffer.pop_front())
    }

    /// Given as leased, not by cursor: what was released by another route may lie before it.
    async fn lease(&self, holder: Holder) -> wire::Result<Vec<Message>> {
        let is_any = self.broker.store.glance(|view| lease::is_any_free(view, &self.peer, &holder, &Taker::Stream))?;
        if !is_any {
            return Ok(Vec::new());
        }
        let (peer, most) = (self.peer.clone(), Most { messages: BATCH, bytes: usize::MAX });
        self.broker.commit(move |tx| Ok(lease::lease(tx, &peer, &holder, &Taker::Stream, most)?)).await
    }

    /// Whether the client is to be told that mail waits.
    fn take_hint(&self) -> wire::Result<bool> {
        let mut roster = self.broker.roster();
        let hint = roster.peers.get_mut(&self.peer).is_some_and(|peer| std::mem::take(&mut peer.hint));
        drop(roster);
        Ok(hint && self.broker.store.glance(|view| history::is_waiting(view, &self.peer))?)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut roster = self.broker.roster();
        let Some(peer) = roster.peers.get_mut(&self.peer).filter(|peer| peer.stream == Some(self.number)) else { return };
        let now = clock::now();
        (peer.stream, peer.row.last_seen) = (None, now);
        peer.wake(); // one that was displaced sees that its successor is gone
        drop(roster);
        self.broker.changes.hint();
        tracing::info!(peer = %self.peer, "disconnected");
        self.broker.note_seen(self.peer.clone(), now);
    }
}

impl Broker {
    /// Notes in the background when a peer was last seen; on failure its time is only less exact after a restart.
    fn note_seen(self: &Arc<Self>, id: PeerId, at: Timestamp) {
        if *self.stopping.borrow() {
            return; // the store is about to close, and everybody is about to be seen again
        }
        let broker = self.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let peer = id.clone();
                let job = broker.note(move |tx| Ok((peers::seen(tx, &peer, at)?, Effects::default())));
                if let Err(error) = job.await {
                    tracing::debug!(peer = %id, %error, "noting its last sign of life failed");
                }
            });
        }
    }
}
