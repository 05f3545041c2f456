//! Maintenance: expires undelivered messages and notifies their senders; removes old history; gives memory back. Works in
//! small steps that stall nobody, and sleeps until something is due.

use super::{core::Broker, presence::LOOK};
use crate::{
    db::{Durability, peers},
    mailbox::{Transaction, expire, history},
    platform::{clock, memory, random},
    wire::{self, PeerId, Status, Timestamp},
};
use std::{sync::Arc, time::Duration};

/// How many rows one transaction reads: a few milliseconds of the writer's time.
const STEP: u32 = 200;
/// The pause between steps, which lets other messages go first.
const PAUSE: Duration = Duration::from_millis(20);
/// The interval between searches for old history.
const ROUND: Duration = Duration::from_secs(3_600);
/// The shortest sleep: no maintenance is urgent enough to wake an idle broker more often.
const SHORTEST: Duration = Duration::from_secs(10);

impl Broker {
    /// Maintains the database until the broker stops.
    pub async fn maintain(self: Arc<Self>) {
        loop {
            let next = match self.maintenance_round().await {
                Ok(next) => next,
                Err(error) => {
                    // Damage in old history shows here first, and people would not look for it in the log.
                    self.notice(format!("clearing up the database failed: {error}"));
                    None
                }
            };
            memory::give_back();
            // A message that arrives during the sleep cannot expire before `expiry` has passed.
            let due = next.map_or(self.limits.expiry, |at| {
                Duration::from_millis(at.as_millis().saturating_sub(clock::now().as_millis()).max(0).unsigned_abs())
            });
            tokio::select! {
                () = self.stopped() => return,
                () = tokio::time::sleep(due.clamp(SHORTEST, ROUND)) => {}
            }
        }
    }

    /// Runs one round; returns when the next message expires.
    async fn maintenance_round(self: &Arc<Self>) -> wire::Result<Option<Timestamp>> {
        let wait = self.limits.expiry;
        let expire = move |tx: &mut Transaction<'_>| expire::expire(tx, wait, STEP, random::message_tag);
        while self.commit(Durability::Fsync, expire).await? >= STEP as usize {
            tokio::time::sleep(PAUSE).await;
        }
        let before = clock::now().minus(self.limits.history);
        let (mut cursor, mut removed) = (Some(0), 0);
        while let Some(at) = cursor {
            removed = at;
            cursor = self.store.write(move |tx| history::forget_ended(tx, before, at, STEP)).await?;
            tokio::time::sleep(PAUSE).await;
        }
        if let Err(error) = self.maintain_index(removed).await {
            tracing::warn!(%error, "the search index is not up to date: {error}");
        }
        self.forget_unseen(before).await?;
        Ok(self.store.read(expire::next_expiry).await?)
    }

    /// Removes peers that were not seen for as long as history is kept. Looks first, so a session open for longer counts as seen.
    async fn forget_unseen(self: &Arc<Self>, before: Timestamp) -> wire::Result<()> {
        self.look(LOOK, |_| true).await;
        let now = clock::now();
        let live: Vec<PeerId> = {
            let roster = self.roster();
            let live = roster.peers.values().filter(|peer| peer.status(now) != Status::Gone);
            live.map(|peer| peer.row.id.clone()).collect()
        };
        let job = self.store.write(move |tx| {
            live.iter().try_for_each(|id| peers::seen(tx, id, now))?;
            peers::forget_unseen(tx, before, STEP)
        });
        let forgotten = job.await?;
        let mut roster = self.roster();
        forgotten.iter().filter_map(|id| id.parse().ok()).for_each(|id| roster.remove(&id));
        Ok(())
    }
}
