use crate::mailbox::MessageChange;
use std::sync::OnceLock;
use tokio::sync::{broadcast, watch};

/// How many changed messages are queued for a slow watcher; it misses further ones.
pub(super) const BACKLOG: usize = 512;

/// Reports changes to watchers.
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

    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.hint.subscribe()
    }

    pub fn subscribe_to_messages(&self) -> broadcast::Receiver<MessageChange> {
        self.messages.get_or_init(|| broadcast::Sender::new(BACKLOG)).subscribe()
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
