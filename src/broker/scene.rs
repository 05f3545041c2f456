//! What people watch: every live peer as lists show it, and every message when its state changes.
//!
//! A message is read from the table when it is its turn, so it is shown as it is by then. Changes that come faster than a watcher
//! reads are counted and left out. A watcher delays nobody.

use super::{
    activities::Activities,
    changes::{Batch, Changed},
    core::{Broker, Caller},
    presence::LOOK_AGAIN,
};
use crate::{
    mailbox::{MessageChange, history},
    wire::{self, MessageId, Peer, PeerId, Status, Timestamp, WatchEvent},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// The pause after each look at the peers: changes in between are told together.
const PACE: Duration = Duration::from_millis(50);

/// A watching person's view of the broker.
#[derive(Debug)]
pub struct Scene {
    broker: Arc<Broker>,
    changed: Changed,
    /// The peers as last told.
    peers: BTreeMap<PeerId, Peer>,
    queue: VecDeque<Item>,
    activities: Activities,
}

#[derive(Debug)]
enum Item {
    Event(Box<WatchEvent>),
    Message(MessageId),
}

impl Item {
    fn event(event: WatchEvent) -> Self {
        Self::Event(Box::new(event))
    }
}

impl Broker {
    /// Opens a watching person's view. Sessions see only their own messages, so this is not for them.
    pub async fn open_scene(self: &Arc<Self>, caller: &Caller) -> wire::Result<Scene> {
        caller.must_be_user("a session, and sees only its own messages", "leave that to the user: `claude-peers watch`")?;
        let changed = self.changes.subscribe();
        let mut scene = Scene {
            broker: self.clone(),
            changed,
            peers: BTreeMap::new(),
            queue: VecDeque::new(),
            activities: Activities::of(self),
        };
        scene.look().await?;
        scene.queue.push_back(Item::event(WatchEvent::Ready));
        Ok(scene)
    }
}

impl Scene {
    /// The next event, until the broker stops. First come all peers, then `ready`, then changes. Cancel-safe.
    pub async fn next(&mut self) -> wire::Result<Option<WatchEvent>> {
        loop {
            while let Some(item) = self.queue.pop_front() {
                match item {
                    Item::Event(event) => return Ok(Some(*event)),
                    Item::Message(id) => {
                        if let Some(message) = self.broker.store.glance(|view| history::get(view, &id))? {
                            return Ok(Some(WatchEvent::Message(self.broker.entry(message))));
                        }
                    }
                }
            }
            tokio::time::sleep(PACE).await;
            // Only its process shows whether a peer without a connection lives on.
            let unsure = self.peers.values().any(|peer| peer.status != Status::Connected);
            let batch = tokio::select! {
                biased;
                () = self.broker.stopped() => return Ok(None),
                batch = self.changed.next() => batch,
                () = self.activities.changed() => Batch::default(),
                () = tokio::time::sleep(LOOK_AGAIN), if unsure => Batch::default(),
            };
            self.enqueue(batch);
            self.look().await?;
        }
    }

    /// Queues each message once, at its last change.
    fn enqueue(&mut self, Batch { messages, missed }: Batch) {
        let mut last: BTreeMap<i64, usize> = BTreeMap::new();
        last.extend(messages.iter().enumerate().map(|(at, change)| (change.id.seq(), at)));
        let is_last = |(at, change): &(usize, MessageChange)| last.get(&change.id.seq()) == Some(at);
        self.queue.extend(messages.into_iter().enumerate().filter(is_last).map(|(_, change)| Item::Message(change.id)));
        if missed > 0 {
            self.queue.push_back(Item::event(WatchEvent::Missed(missed)));
        }
    }

    /// Queues what has changed about the peers since the last look.
    async fn look(&mut self) -> wire::Result<()> {
        let shown = self.broker.shown(|_| true, None).await?.peers;
        let mut gone = std::mem::take(&mut self.peers);
        for peer in shown {
            let told = gone.remove(&peer.id).is_some_and(|told| timeless(&told) == timeless(&peer));
            if !told {
                self.queue.push_back(Item::event(WatchEvent::Peer(peer.clone())));
            }
            self.peers.insert(peer.id.clone(), peer);
        }
        self.activities.looked();
        self.queue.extend(gone.into_keys().map(|id| Item::event(WatchEvent::Left(id))));
        Ok(())
    }
}

/// The peer without the time at which it was last seen, which passes for each.
fn timeless(peer: &Peer) -> Peer {
    Peer { last_seen: Timestamp::default(), ..peer.clone() }
}
