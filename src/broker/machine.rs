//! Another machine in memory: when it was heard. Also the gateway, without which nothing is heard of any.

use crate::wire::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// How long a machine counts as there after it was heard. It is heard every 5 s.
pub(super) const HEARD: Duration = Duration::from_secs(20);

/// How often the time at which a machine was heard is stored.
const NOTED: Duration = Duration::from_secs(60);
/// How long a gateway may fetch nothing until it counts as gone. While it hands on what it has fetched, it fetches nothing.
const UNATTENDED: Duration = Duration::from_secs(30);

/// What was heard of a machine since the broker started.
#[derive(Debug)]
pub(super) struct Machine {
    /// When it announced its peers last.
    pub heard: Timestamp,
    /// The same by a clock that nobody sets.
    pub moment: Instant,
    /// It has not been heard for too long.
    pub is_silent: bool,
    /// When that time was stored.
    pub noted: Option<Instant>,
}

impl Machine {
    /// A machine that is heard for the first time.
    pub fn new(now: Timestamp) -> Self {
        Self { heard: now, moment: Instant::now(), is_silent: false, noted: None }
    }

    /// The machine is heard. Returns whether it was away.
    pub fn hear(&mut self, now: Timestamp) -> bool {
        (self.heard, self.moment) = (now, Instant::now());
        std::mem::take(&mut self.is_silent)
    }

    pub fn is_here(&self, now: Timestamp) -> bool {
        !self.is_silent && self.heard.plus(HEARD) > now
    }

    /// Whether the time at which it was heard should be stored.
    pub fn is_due(&self) -> bool {
        self.noted.is_none_or(|noted| noted.elapsed() >= NOTED)
    }

    /// When it is away, unless it is heard before.
    pub fn silent_at(&self) -> Instant {
        self.moment + HEARD
    }
}

/// Who fetches the mail for other machines.
#[derive(Debug, Default)]
pub(super) struct Gateway {
    /// How many requests wait for such mail now.
    takers: u32,
    /// When the last one ended.
    left: Option<Instant>,
}

impl Gateway {
    pub fn enter(&mut self) {
        self.takers += 1;
    }

    pub fn leave(&mut self) {
        (self.takers, self.left) = (self.takers.saturating_sub(1), Some(Instant::now()));
    }

    /// Whether a gateway is at work.
    pub fn is_attended(&self) -> bool {
        self.takers > 0 || self.left.is_some_and(|left| left.elapsed() < UNATTENDED)
    }
}
