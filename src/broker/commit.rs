//! Changes: a job for the writing thread and, after its commit, the effects on connected peers. Only this file does either.

use super::{core::Broker, roster::Roster};
use crate::{
    db::{self, Durability},
    mailbox::{self, Effects, InboxNews, MessageChange, Transaction},
    platform::clock,
    wire::{self, Code, Error, MessageState, Timestamp},
};
use std::{
    fmt::{self, Display},
    sync::Arc,
};

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
        let ended = |error| Error::new(Code::Internal, format!("the change was not finished: {error}"));
        tokio::spawn(change).await.map_err(ended)?
    }

    fn apply(&self, effects: Effects) {
        let mut roster = self.roster();
        for (id, agent, at) in effects.proofs {
            tracing::info!(peer = %id, "the inbox or channel of {} has proved itself", roster.called(&id));
            if let Some(peer) = roster.peers.get_mut(&id) {
                peer.row.proved = Some((agent, at));
            }
        }
        for (id, news) in effects.inbox {
            if let InboxNews::Missed(messages @ 1..) = news {
                tracing::warn!(peer = %id, messages, "{} has not let in the last frame in its inbox: {messages} messages wait again", roster.called(&id));
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
        let now = clock::now();
        for change in &effects.changes {
            log(change, &roster, now);
            self.metrics.message(change, now);
        }
        drop(roster);
        self.changes.messages(effects.changes);
    }
}

/// Logs who sent a message to whom and what has become of it. Its number is in the text, its id in a field.
fn log(change: &MessageChange, roster: &Roster, now: Timestamp) {
    let MessageChange { id, from, to, state, route, sent_at } = change;
    let (sender, peer, number) = (roster.name(from), roster.name(to), id.seq());
    let after = after(now.as_millis() - sent_at.as_millis());
    let route = route.map(tracing::field::display);
    let became = fmt::from_fn(|f| match (state, &route) {
        (MessageState::Queued, _) => state.fmt(f),
        (MessageState::Offered | MessageState::Delivered, Some(by)) => write!(f, "{state} by {by} after {after}"),
        _ => write!(f, "{state} after {after}"),
    });
    if *state == MessageState::Offered {
        tracing::debug!(_message = %id, peer = %to, sender = %from, %state, route, "{sender} → {peer} m{number} {became}");
    } else {
        tracing::info!(_message = %id, peer = %to, sender = %from, %state, route, "{sender} → {peer} m{number} {became}");
    }
}

/// A span in milliseconds, to the second where it is long.
fn after(millis: i64) -> String {
    if millis < 10_000 { format!("{} ms", millis.max(0)) } else { format!("{} s", millis / 1_000) }
}
