//! Another machine in memory: when it was heard.

use crate::wire::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// How long a machine counts as there after it was heard. It is heard every 5 s.
pub(super) const HEARD: Duration = Duration::from_secs(20);

/// What was heard of a machine since the broker started.
#[derive(Debug)]
pub(super) struct Machine {
    /// When it announced its peers last.
    pub heard: Timestamp,
    /// The same by a clock that nobody sets.
    pub moment: Instant,
    /// It has not been heard for too long.
    pub is_silent: bool,
}

impl Machine {
    /// A machine that is heard now.
    pub fn heard(now: Timestamp) -> Self {
        Self { heard: now, moment: Instant::now(), is_silent: false }
    }

    /// When it is away, unless it is heard before.
    pub fn silent_at(&self) -> Instant {
        self.moment + HEARD
    }
}
