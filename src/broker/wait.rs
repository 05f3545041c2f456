//! Waits of a request, for as long as its client asks.

use super::core::Broker;
use crate::{db, wire};
use std::time::Duration;
use tokio::{sync::watch, time::Instant};

/// The longest wait of one request, in seconds.
const LONGEST: u32 = 3_600;

pub(super) struct Wait<T> {
    deadline: Instant,
    /// Tells of each change that may end the wait.
    changes: watch::Receiver<T>,
}

impl<T> Wait<T> {
    /// A wait that begins now. Without `seconds` it is over at once.
    pub fn new(seconds: Option<u32>, changes: watch::Receiver<T>) -> Self {
        Self { deadline: Instant::now() + Duration::from_secs(seconds.unwrap_or(0).min(LONGEST).into()), changes }
    }

    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Resolves at the next change, at the end of the wait, or at `at`. Fails if the broker stops.
    pub async fn change(&mut self, broker: &Broker, at: Option<Instant>) -> wire::Result<()> {
        tokio::select! {
            biased;
            () = broker.stopped() => return Err(db::Error::Closed.into()),
            () = tokio::time::sleep_until(at.map_or(self.deadline, |at| at.min(self.deadline))) => {}
            changed = self.changes.changed() => drop(changed),
        }
        Ok(())
    }
}
