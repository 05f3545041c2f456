use crate::mailbox::MessageChange;
use std::sync::OnceLock;
use tokio::sync::{broadcast, watch};

/// How many changed messages wait for a slow watcher, which misses any more.
pub(super) const BACKLOG: usize = 512;

/// Where changes are reported.
#[derive(Debug, Default)]
pub(super) struct Changes {
    hint: watch::Sender<()>,
    /// Takes memory only once somebody watches.
    messages: OnceLock<broadcast::Sender<MessageChange>>,
}

impl Changes {
    /// Tells everybody who is subscribed that a peer or the waiting mail may have changed.
    pub fn hint(&self) {
        self.hint.send_replace(());
    }

    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.hint.subscribe()
    }

    pub fn subscribe_to_messages(&self) -> broadcast::Receiver<MessageChange> {
        self.messages.get_or_init(|| broadcast::Sender::new(BACKLOG)).subscribe()
    }

    /// Tells of changed messages, and that with them the waiting mail may have changed.
    pub fn messages(&self, changed: impl IntoIterator<Item = MessageChange>) {
        if let Some(watchers) = self.messages.get() {
            for change in changed {
                drop(watchers.send(change)); // fails if nobody watches any more
            }
        }
        self.hint();
    }
}
