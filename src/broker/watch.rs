//! What changes, for whoever watches: peers come and go, messages go from state to state, the two counts.
//!
//! Who is there is derived, as everywhere: a change elsewhere is only a hint to look again, and what is told is the
//! difference to the look before. Messages are told one by one from a queue of fixed length; what a slow watcher misses is
//! counted and not told. Nobody is ever held up by a watcher, and without one nothing is kept.

use super::{Broker, MessageChange, presence::LOOK};
use crate::{
    platform::clock,
    wire::{PeerId, Status},
};
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::{
    broadcast::{self, error::RecvError, error::TryRecvError},
    watch,
};

/// How many changed messages wait for a slow watcher; more are missed by it.
const BACKLOG: usize = 512;
/// How soon a peer without a stream is looked at again: only its process tells when it is gone.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where changes are reported.
#[derive(Debug)]
pub(super) struct Changes {
    hint: watch::Sender<()>,
    messages: OnceLock<broadcast::Sender<MessageChange>>,
}

impl Changes {
    pub fn new() -> Self {
        Self { hint: watch::Sender::new(()), messages: OnceLock::new() }
    }

    /// Who is there, or what waits, may have changed.
    pub fn hint(&self) {
        self.hint.send_replace(());
    }

    /// Told of every such hint from now on.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.hint.subscribe()
    }

    /// These messages changed, and with them what waits.
    pub fn messages(&self, changed: impl IntoIterator<Item = MessageChange>) {
        if let Some(watchers) = self.messages.get() {
            for change in changed {
                // Without a watcher there is nobody to tell.
                drop(watchers.send(change));
            }
        }
        self.hint();
    }
}

/// A peer that came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    pub id: PeerId,
    pub name: String,
    pub cwd: String,
}

/// What changed since the last time.
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
        let messages = self.changes.messages.get_or_init(|| broadcast::Sender::new(BACKLOG)).subscribe();
        let hint = self.changes.hint.subscribe();
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

    /// Waits for something new; none when the broker stops. What is not asked for meanwhile is told together.
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
