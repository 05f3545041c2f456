//! Changes: a job for the writing thread and, after its commit, the effects on connected peers. Only this file does either.

use super::core::Broker;
use crate::{
    db::{self, Durability},
    mailbox::{self, Effects, InboxNews, Transaction},
    platform::clock,
    wire,
};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::runtime::Handle;

/// A future that goes on in a task of its own if it is dropped before its end.
struct ToCompletion<F: Future<Output: Send> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: Send> + Send + 'static> Future for ToCompletion<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let output = ready!(future.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(output)
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for ToCompletion<F> {
    fn drop(&mut self) {
        if let (Some(future), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(future);
        }
    }
}

impl Broker {
    /// Runs `job` in a transaction, then applies its effects and returns its value. Runs to completion even if the caller is
    /// dropped, so the effects of a stored change are always applied. [`Durability::Process`] is for changes that a power cut may
    /// undo, because no process survives it.
    pub(super) async fn commit<T, J>(self: &Arc<Self>, durability: Durability, job: J) -> wire::Result<T>
    where
        T: Send + 'static,
        J: FnOnce(&mut Transaction<'_>) -> mailbox::Result<T> + Send + 'static,
    {
        let now = clock::now();
        let job = move |tx: &db::Tx<'_>| -> mailbox::Result<(T, Effects)> {
            let mut transaction = Transaction::new(tx, now);
            let value = job(&mut transaction)?;
            Ok((value, transaction.effects))
        };
        // Queued first, so that jobs run in the order of their requests.
        let committed = self.store.submit(durability, job).await?;
        let broker = self.clone();
        let change = async move {
            let (value, effects) = committed.await?;
            broker.apply(effects);
            Ok(value)
        };
        ToCompletion(Some(Box::pin(change))).await
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
                tracing::warn!(peer = %id, messages, "the last frame in its inbox was not let in: its messages wait again");
            }
            if let Some(peer) = roster.peers.get_mut(&id) {
                peer.inbox.hear(news);
            }
        }
        for (id, hints) in effects.wake {
            if let Some(peer) = roster.peers.get_mut(&id) {
                peer.hint |= hints;
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
