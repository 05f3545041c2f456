use crate::mailbox::MessageChange;
use std::sync::OnceLock;
use tokio::sync::{broadcast, watch};

/// How many changed messages wait for a slow watcher; more are missed by it.
pub(super) const BACKLOG: usize = 512;

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

    /// Told of every changed message from now on.
    pub fn subscribe_to_messages(&self) -> broadcast::Receiver<MessageChange> {
        self.messages.get_or_init(|| broadcast::Sender::new(BACKLOG)).subscribe()
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
