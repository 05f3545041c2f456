use crate::mailbox::MessageChange;
use std::sync::OnceLock;
use tokio::sync::{
    broadcast::{self, error::RecvError, error::TryRecvError},
    watch,
};

/// How many changed messages are queued for a slow watcher; it misses further ones.
const BACKLOG: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Changes {
    hint: watch::Sender<()>,
    /// Uses memory only once somebody watches.
    messages: OnceLock<broadcast::Sender<MessageChange>>,
}

impl Changes {
    /// Tells all subscribers that a peer or the waiting messages may have changed.
    pub fn hint(&self) {
        self.hint.send_replace(());
    }

    /// Only the hints from now on.
    pub fn hints(&self) -> watch::Receiver<()> {
        self.hint.subscribe()
    }

    /// All changes from now on.
    pub fn subscribe(&self) -> Changed {
        let messages = self.messages.get_or_init(|| broadcast::Sender::new(BACKLOG)).subscribe();
        Changed { hint: self.hint.subscribe(), messages }
    }

    /// Reports changed messages, and hints that the waiting messages may have changed.
    pub fn messages(&self, changed: impl IntoIterator<Item = MessageChange>) {
        if let Some(watchers) = self.messages.get() {
            for change in changed {
                drop(watchers.send(change)); // fails if nobody is watching any longer
            }
        }
        self.hint();
    }
}

/// The changes for one watcher.
#[derive(Debug)]
pub(super) struct Changed {
    hint: watch::Receiver<()>,
    messages: broadcast::Receiver<MessageChange>,
}

/// Messages that changed, in order, and how many changes came too fast and are left out.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub messages: Vec<MessageChange>,
    pub missed: u64,
}

impl Changed {
    /// Waits for the next changes. An empty batch is a hint that a peer may have changed. Cancel-safe.
    pub async fn next(&mut self) -> Batch {
        let mut batch = Batch::default();
        tokio::select! {
            biased;
            message = self.messages.recv() => match message {
                Ok(message) => batch.messages.push(message),
                Err(RecvError::Lagged(missed)) => batch.missed += missed,
                Err(RecvError::Closed) => std::future::pending().await, // the broker holds the sender
            },
            hint = self.hint.changed() => if hint.is_err() { std::future::pending().await },
        }
        // Reads no more than the backlog, no matter how fast new changes come.
        for _ in 0..BACKLOG {
            match self.messages.try_recv() {
                Ok(message) => batch.messages.push(message),
                Err(TryRecvError::Lagged(missed)) => batch.missed += missed,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.hint.mark_unchanged();
        batch
    }
}
