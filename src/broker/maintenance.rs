//! Maintenance: undelivered mail expires and says so to its sender; what ended long ago is removed, in small steps that stall
//! nobody. Sleeps until something is due; does nothing in between.

use super::{core::Broker, presence::LOOK};
use crate::{
    db::{self, peers},
    mailbox::{Effects, expire, history},
    platform::{clock, random},
    wire::{self, PeerId, Status, Timestamp},
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
    /// Maintains the database until the broker stops.
    pub async fn maintain(self: Arc<Self>) {
        loop {
            let next = match self.maintenance_round().await {
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

    /// One round; returns when the next message expires.
    async fn maintenance_round(self: &Arc<Self>) -> wire::Result<Option<Timestamp>> {
        let now = clock::now();
        let notices_until = now.plus(self.limits.expiry);
        while self.commit(move |tx| Ok(expire::expire(tx, now, notices_until, STEP, random::message_tag)?)).await?
            >= STEP as usize
        {
            tokio::time::sleep(PAUSE).await;
        }
        let before = now.minus(self.limits.history);
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            cursor = self.store.write(move |tx| history::forget_ended(tx, before, at, STEP)).await?;
            tokio::time::sleep(PAUSE).await;
        }
        self.forget_unseen(before).await?;
        Ok(self.store.read(expire::next_expiry).await?)
    }

    /// Removes peers that nobody has seen for as long as history is kept. A session that has been open for longer is seen now.
    async fn forget_unseen(self: &Arc<Self>, before: Timestamp) -> wire::Result<()> {
        self.look(LOOK, |_| true).await;
        let now = clock::now();
        let live: Vec<PeerId> = {
            let roster = self.roster();
            let live = roster.peers.values().filter(|peer| peer.status(now) != Status::Gone);
            live.map(|peer| peer.row.id.clone()).collect()
        };
        let job = move |tx: &db::Tx<'_>| {
            live.iter().try_for_each(|id| peers::seen(tx, id, now))?;
            Ok((peers::forget_unseen(tx, before, STEP)?, Effects::default()))
        };
        let forgotten = self.commit(job).await?;
        let mut roster = self.roster();
        forgotten.iter().filter_map(|id| id.parse().ok()).for_each(|id| roster.remove(&id));
        Ok(())
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
