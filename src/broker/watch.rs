//! Tells watchers of changes: peers that come and go, messages that change their state, the two counts.
//!
//! Who is there is derived, as everywhere: a change elsewhere is only a hint to look again, and what is told is the
//! difference to the look before. Messages are told one by one from a queue of fixed length; what a slow watcher misses is
//! counted and not told. A watcher never delays anybody, and without one no change is kept.

use super::{MessageChange, core::Broker, presence::LOOK};
use crate::{
    platform::clock,
    wire::{PeerId, Status},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::{
    broadcast::{self, error::RecvError, error::TryRecvError},
    watch,
};

/// How many changed messages wait for a slow watcher; more are missed by it.
const BACKLOG: usize = 512;
/// How soon a peer without a stream is looked at again: only its process tells when it is gone.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A peer that came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    pub id: PeerId,
    pub name: String,
    pub cwd: String,
}

/// The changes since the last time.
#[derive(Debug, Default)]
pub struct News {
    /// Who is there now and was not.
    pub joined: Vec<Presence>,
    /// Who was there and is not any more.
    pub left: Vec<Presence>,
    /// Which messages changed, in order.
    pub messages: Vec<MessageChange>,
    /// How many changes of messages came too fast and are not told.
    pub missed: u64,
}

/// A watcher.
#[derive(Debug)]
pub struct Watch {
    broker: Arc<Broker>,
    hint: watch::Receiver<()>,
    messages: broadcast::Receiver<MessageChange>,
    present: HashMap<PeerId, Presence>,
    waiting: u64,
    /// Somebody is there without a stream.
    unsure: bool,
}

impl Broker {
    /// Watches from now on: who is there already is not told.
    pub async fn watch(self: &Arc<Self>) -> Watch {
        let messages = self.changes.subscribe_to_messages();
        let hint = self.changes.subscribe();
        let mut watch = Watch { broker: self.clone(), hint, messages, present: HashMap::new(), waiting: 0, unsure: false };
        watch.look(&mut News::default()).await;
        watch
    }
}

impl Watch {
    /// How many peers are there and how many messages wait, by the last look.
    pub fn counts(&self) -> (u32, u64) {
        (u32::try_from(self.present.len()).unwrap_or(u32::MAX), self.waiting)
    }

    /// Waits for something new; none when the broker stops. Changes in between are told together.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            let mut news = News::default();
            tokio::select! {
                biased;
                () = self.broker.stopped() => return None,
                message = self.messages.recv() => match message {
                    Ok(message) => news.messages.push(message),
                    Err(RecvError::Lagged(missed)) => news.missed += missed,
                    Err(RecvError::Closed) => return None,
                },
                hint = self.hint.changed() => if hint.is_err() { return None },
                () = tokio::time::sleep(LOOK_AGAIN), if self.unsure => {}
            }
            // Bounded: no more than the backlog, however fast new ones come.
            for _ in 0..BACKLOG {
                match self.messages.try_recv() {
                    Ok(message) => news.messages.push(message),
                    Err(TryRecvError::Lagged(missed)) => news.missed += missed,
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            self.hint.mark_unchanged();
            let counts_changed = self.look(&mut news).await;
            if counts_changed || news.missed > 0 || !(news.joined.is_empty() && news.left.is_empty() && news.messages.is_empty())
            {
                return Some(news);
            }
        }
    }

    /// Adds what a look at the peers shows; whether what waits has changed.
    async fn look(&mut self, news: &mut News) -> bool {
        self.broker.look(LOOK, |_| true).await;
        let waiting = self.broker.waiting_count().unwrap_or_else(|error| {
            tracing::warn!(%error, "counting what waits failed");
            self.waiting
        });
        let now = clock::now();
        let mut gone = std::mem::take(&mut self.present);
        self.unsure = false;
        for peer in self.broker.roster().peers.values().filter(|peer| peer.status(now) != Status::Gone) {
            self.unsure |= peer.stream.is_none();
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
