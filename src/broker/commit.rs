//! A change: a job for the writing thread, and after its commit the effects on those who are connected. The only place for both.

use super::core::Broker;
use crate::{
    db::{self, Durability, Tx},
    mailbox::{self, Effects, InboxNews},
    wire,
};
use std::sync::Arc;

impl Broker {
    /// Runs `job` in a transaction; once that is on disk, applies its effects and returns its value. Runs to completion, also if
    /// the caller is dropped: a change that is stored is always told.
    pub(super) async fn commit<T, J>(self: &Arc<Self>, job: J) -> wire::Result<T>
    where
        T: Send + 'static,
        J: FnOnce(&Tx<'_>) -> mailbox::Result<(T, Effects)> + Send + 'static,
    {
        self.commit_as(Durability::Fsync, job).await
    }

    /// The same without the wait for the disk: for what a power cut may undo, because no process survives it.
    pub(super) async fn note<T, J>(self: &Arc<Self>, job: J) -> wire::Result<T>
    where
        T: Send + 'static,
        J: FnOnce(&Tx<'_>) -> mailbox::Result<(T, Effects)> + Send + 'static,
    {
        self.commit_as(Durability::Process, job).await
    }

    async fn commit_as<T, J>(self: &Arc<Self>, durability: Durability, job: J) -> wire::Result<T>
    where
        T: Send + 'static,
        J: FnOnce(&Tx<'_>) -> mailbox::Result<(T, Effects)> + Send + 'static,
    {
        // Queued right here: jobs run in the order in which their requests came.
        let committed = self.store.submit(durability, job).await?;
        let broker = self.clone();
        let change = tokio::spawn(async move {
            let (value, effects) = committed.await?;
            broker.apply(effects);
            Ok(value)
        });
        change.await.unwrap_or_else(|_| Err(db::Error::Closed.into()))
    }

    fn apply(&self, effects: Effects) {
        let mut roster = self.roster();
        for (id, agent, at) in effects.proofs {
            tracing::info!(peer = %id, "its inbox or channel has proved itself");
            if let Some(peer) = roster.peers.get_mut(&id) {
                peer.row.proved = Some((agent, at));
            }
        }
        for (id, news) in effects.inbox {
            if let InboxNews::Missed(messages @ 1..) = news {
                tracing::warn!(peer = %id, messages, "what was written into its inbox was not let in: it is handed over again");
            }
            if let Some(peer) = roster.peers.get_mut(&id) {
                peer.inbox.hear(news);
            }
        }
        for id in effects.hint {
            if let Some(peer) = roster.peers.get_mut(&id) {
                peer.hint = true;
            }
        }
        for id in effects.wake {
            if let Some(peer) = roster.peers.get(&id) {
                peer.wake();
            }
        }
        drop(roster);
        for change in &effects.changes {
            let (route, state) = (change.route.map(tracing::field::display), change.state);
            tracing::info!(message = %change.id, peer = %change.to, sender = %change.from, %state, route, "message");
        }
        self.changes.messages(effects.changes);
    }
}
