//! Housekeeping: undelivered mail expires and says so to its sender; what ended long ago is removed, in small steps that
//! stall nobody. Sleeps until something is due; does nothing in between.

use super::{Broker, MessageChange};
use crate::{
    db::{self, peers::PeerRow},
    mailbox::{
        history,
        messages::{self, Message, NewMessage},
    },
    platform::{clock, random},
    wire::{self, BROKER_SENDER, MessageId, MessageState, PeerId, Status, Timestamp},
};
use std::{sync::Arc, time::Duration};

/// Rows looked at in one transaction: a few milliseconds of the writer's time.
const STEP: u32 = 200;
/// Pause between steps, in which everybody else's messages go first.
const PAUSE: Duration = Duration::from_millis(20);
/// How often old history is looked for.
const ROUND: Duration = Duration::from_secs(3_600);
/// Shortest sleep: nothing here is so urgent that an idle broker should wake more often.
const SHORTEST: Duration = Duration::from_secs(10);

impl Broker {
    /// Does the housekeeping until the broker stops.
    pub async fn keep_house(self: Arc<Self>) {
        loop {
            let next = match self.sweep().await {
                Ok(next) => next,
                Err(error) => {
                    // Damage that only old history has shows here first: nobody would look for it in the log.
                    self.notice(format!("clearing up the database failed: {error}"));
                    None
                }
            };
            let due = next
                .map(|at| Duration::from_millis(at.as_millis().saturating_sub(clock::now().as_millis()).max(0).unsigned_abs()));
            tokio::select! {
                () = self.stopped() => return,
                () = tokio::time::sleep(pause(due, self.limits.expiry)) => {}
            }
        }
    }

    /// One round; when the next message expires.
    async fn sweep(&self) -> wire::Result<Option<Timestamp>> {
        while self.expire_some().await? {
            tokio::time::sleep(PAUSE).await;
        }
        let before = clock::now().minus(self.limits.history);
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            cursor = self.store.write(move |c| Ok(history::forget_ended(c, before, at, STEP)?)).await?;
            tokio::time::sleep(PAUSE).await;
        }
        let now = clock::now();
        let live: Vec<PeerId> = {
            let state = self.state();
            let live = state.peers.values().filter(|peer| peer.status(now) != Status::Gone);
            live.map(|peer| peer.row.id.clone()).collect()
        };
        let job = move |c: &rusqlite::Connection| {
            // A session that has been open for longer than history is kept must not count as unseen.
            live.iter().try_for_each(|id| db::peers::seen(c, id, now))?;
            Ok(db::peers::forget_unseen(c, before, STEP)?)
        };
        let forgotten = self.store.write(job).await?;
        for id in forgotten.iter().filter_map(|id| id.parse().ok()) {
            self.state().remove(&id);
        }
        Ok(self.store.read(|c| Ok(history::next_expiry(c)?)).await?)
    }

    /// Lets a few messages expire and tells their senders; whether there may be more.
    async fn expire_some(&self) -> wire::Result<bool> {
        let now = clock::now();
        let notices_until = now.plus(self.limits.expiry);
        let names: Vec<(String, String)> =
            self.state().peers.values().map(|peer| (peer.row.id.to_string(), peer.row.name.clone())).collect();
        let job = move |c: &rusqlite::Connection| {
            let due = history::expire(c, now, STEP)?;
            let mut notices = Vec::new();
            for (message, _) in &due {
                let known = |id: &str| names.iter().find(|(known, _)| known == id);
                // Notices are not answered by notices, and the command line has no mailbox.
                if message.from == BROKER_SENDER || known(&message.from).is_none() {
                    continue;
                }
                let name = known(&message.to).map_or(message.to.as_str(), |(_, name)| name);
                let notice = notice(message, name, now, notices_until);
                let id = MessageId::new(messages::insert(c, &notice, None)?, notice.tag).map_err(wire::Error::from)?;
                notices.push((id, notice.to));
            }
            Ok((due, notices))
        };
        let (due, notices) = self.store.write(job).await?;
        let mut state = self.state();
        for (message, waited) in &due {
            tracing::info!(message = %message.id, peer = %message.to, "expired");
            if *waited && let Some(peer) = state.peers.get_mut(&PeerId::lenient(&message.to)) {
                peer.waiting = peer.waiting.saturating_sub(1);
            }
        }
        for (_, to) in &notices {
            if let Some(peer) = state.peers.get_mut(to) {
                peer.waiting += 1;
                peer.hint = true;
                peer.wake();
            }
        }
        drop(state);
        let expired = due.iter().map(|(message, _)| MessageChange {
            id: message.id.clone(),
            from: PeerId::lenient(&message.from),
            to: PeerId::lenient(&message.to),
            state: MessageState::Expired,
            route: None,
        });
        let told = notices.into_iter().map(|(id, to)| MessageChange {
            id,
            from: PeerId::lenient(BROKER_SENDER),
            to,
            state: MessageState::Queued,
            route: None,
        });
        self.changes.messages(expired.chain(told));
        Ok(due.len() >= STEP as usize)
    }

    /// Notes in the background when a peer was last seen; on failure its time is only less exact after a restart.
    pub(super) fn remember_seen(self: &Arc<Self>, row: PeerRow) {
        if *self.stopping.borrow() {
            return; // the store is about to close, and everybody is about to be seen again
        }
        let broker = self.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let id = row.id.clone();
                let job = move |c: &rusqlite::Connection| Ok(db::peers::seen(c, &row.id, row.last_seen)?);
                if let Err(error) = broker.store.write(job).await {
                    tracing::debug!(peer = %id, %error, "noting its last sign of life failed");
                }
            });
        }
    }
}

fn notice(message: &Message, to_name: &str, now: Timestamp, until: Timestamp) -> NewMessage {
    let text = format!(
        "Message {} to {to_name} ({}), sent {}, was not delivered in time and has expired. It will not be shown to {to_name} any more.",
        message.id, message.to, message.sent_at
    );
    NewMessage {
        tag: random::message_tag(),
        from: PeerId::lenient(BROKER_SENDER),
        to: PeerId::lenient(&message.from),
        text,
        reply_to: Some(message.id.clone()),
        key: None,
        sent_at: now,
        expires_at: until,
        passes: true,
        bypassed: false,
        held: None,
    }
}

/// How long to sleep when the next message expires in `due`. One that comes meanwhile has all of `expiry` before it.
fn pause(due: Option<Duration>, expiry: Duration) -> Duration {
    due.unwrap_or(expiry).clamp(SHORTEST, ROUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_expires_unnoticed_and_no_idle_broker_wakes_often() {
        let (minute, week) = (Duration::from_secs(60), Duration::from_secs(7 * 86_400));
        assert_eq!(pause(None, week), ROUND);
        assert_eq!(pause(None, minute), minute, "what comes right now expires then");
        assert_eq!(pause(Some(minute), week), minute);
        assert_eq!(pause(Some(Duration::ZERO), week), SHORTEST);
    }
}
