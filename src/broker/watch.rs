//! Reports changes to watchers: peers that come and go, messages that change state, and the two counts.
//!
//! A change elsewhere is only a hint to look again; watchers get the difference from the previous look. Messages are reported one
//! by one from a queue of fixed length; those that a slow watcher misses are counted. A watcher delays nobody.

use super::{
    MessageChange,
    changes::{Batch, Changed},
    core::Broker,
    presence::{LOOK, LOOK_AGAIN},
};
use crate::{
    platform::clock,
    wire::{PeerId, Status},
};
use std::{collections::HashMap, sync::Arc};

/// A peer that came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    pub id: PeerId,
    pub name: String,
    pub cwd: String,
}

/// The changes since the last report.
#[derive(Debug, Default)]
pub struct News {
    pub joined: Vec<Presence>,
    pub left: Vec<Presence>,
    /// Messages that changed, in order.
    pub messages: Vec<MessageChange>,
    /// How many message changes came too fast and are left out.
    pub missed: u64,
}

impl News {
    fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty() && self.messages.is_empty() && self.missed == 0
    }
}

#[derive(Debug)]
pub struct Watch {
    broker: Arc<Broker>,
    changed: Changed,
    present: HashMap<PeerId, Presence>,
    waiting: u64,
    /// Whether a peer of this machine is present without a stream.
    unsure: bool,
}

impl Broker {
    /// Watches from now on. Peers that are already present are not reported.
    pub async fn watch(self: &Arc<Self>) -> Watch {
        let changed = self.changes.subscribe();
        let mut watch = Watch { broker: self.clone(), changed, present: HashMap::new(), waiting: 0, unsure: false };
        watch.look(&mut News::default()).await;
        watch
    }
}

impl Watch {
    /// How many peers are present and how many messages wait, as of the last look.
    pub fn counts(&self) -> (u32, u64) {
        (u32::try_from(self.present.len()).unwrap_or(u32::MAX), self.waiting)
    }

    /// Waits for changes until the broker stops. Changes since the last call are reported together.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            let Batch { messages, missed } = tokio::select! {
                biased;
                () = self.broker.stopped() => return None,
                batch = self.changed.next() => batch,
                () = tokio::time::sleep(LOOK_AGAIN), if self.unsure => Batch::default(),
            };
            let mut news = News { messages, missed, ..News::default() };
            let counts_changed = self.look(&mut news).await;
            if counts_changed || !news.is_empty() {
                return Some(news);
            }
        }
    }

    /// Adds the changes that a look at the peers shows. Returns whether the number of waiting messages has changed.
    async fn look(&mut self, news: &mut News) -> bool {
        self.broker.look(LOOK, |_| true).await;
        let waiting = self.broker.waiting_count().unwrap_or_else(|error| {
            tracing::warn!(%error, "counting what waits failed: {error}");
            self.waiting
        });
        let now = clock::now();
        let mut gone = std::mem::take(&mut self.present);
        self.unsure = false;
        for peer in self.broker.roster().peers.values().filter(|peer| peer.status(now) != Status::Gone) {
            self.unsure |= peer.stream.is_none() && peer.row.machine.is_none();
            let presence = gone.remove(&peer.row.id).unwrap_or_else(|| {
                let presence = Presence { id: peer.row.id.clone(), name: peer.row.name.clone(), cwd: peer.row.cwd.clone() };
                news.joined.push(presence.clone());
                presence
            });
            self.present.insert(presence.id.clone(), presence);
        }
        news.left = gone.into_values().collect();
        std::mem::replace(&mut self.waiting, waiting) != waiting
    }
}
