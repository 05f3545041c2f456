//! What the senders and the killer share.

use crate::support::{PATIENCE, random::Random};
use std::sync::{Condvar, Mutex};

/// How many kills of the broker come to one of a session.
const BROKER_KILLS_PER_SESSION_KILL: u64 = 2;
/// How far the kills of the sessions may lag behind those of the broker.
const LAG: u64 = 8;

/// How often each kind of process is killed.
#[derive(Debug, Clone, Copy)]
pub struct Kills {
    pub brokers: u64,
    pub sessions: u64,
}

impl Kills {
    /// Two thirds of `all` for the broker, one third for the sessions.
    pub fn of(all: u64) -> Self {
        let sessions = all / (BROKER_KILLS_PER_SESSION_KILL + 1);
        Self { brokers: all - sessions, sessions }
    }
}

/// The state shared by the senders and the killer.
pub struct Load {
    now: Mutex<Moment>,
    changed: Condvar,
    wanted: Kills,
}

#[derive(Clone, Copy, Default)]
pub struct Moment {
    /// How many requests have begun.
    pub begun: u64,
    /// How many of them have ended.
    pub ended: u64,
    /// How many brokers have started.
    pub brokers: u64,
    pub killed_brokers: u64,
    pub killed_sessions: u64,
    /// Brokers killed before they were ready. They do not count.
    pub killed_starts: u64,
    pub over: bool,
}

impl Load {
    pub fn new(wanted: Kills) -> Self {
        Self { now: Mutex::default(), changed: Condvar::new(), wanted }
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut Moment) -> T) -> T {
        let changed = change(&mut self.now.lock().unwrap());
        self.changed.notify_all();
        changed
    }

    pub fn now(&self) -> Moment {
        *self.now.lock().unwrap()
    }

    pub fn is_over(&self) -> bool {
        self.now().over
    }

    pub fn wait_for(&self, event: impl Fn(&Moment) -> bool) {
        let (now, waited) =
            self.changed.wait_timeout_while(self.now.lock().unwrap(), PATIENCE, |now| !event(now) && !now.over).unwrap();
        drop(now);
        assert!(!waited.timed_out(), "nothing goes on any more");
    }

    /// Whether a session is to be killed now. The caller kills it.
    pub fn claims_session_kill(&self) -> bool {
        let wanted = self.wanted.sessions;
        self.change(|now| {
            let is_due = now.killed_brokers >= now.killed_sessions * BROKER_KILLS_PER_SESSION_KILL;
            let claimed = is_due && now.killed_sessions < wanted && !now.over;
            now.killed_sessions += u64::from(claimed);
            claimed
        })
    }

    /// Waits until the broker may be killed again: sessions were killed in proportion, and `more` requests have begun.
    pub fn wait_for_work(&self, more: u64) {
        let (begun, wanted) = (self.now().begun + more, self.wanted.sessions);
        self.wait_for(|now| {
            let kept_up = now.killed_brokers <= (now.killed_sessions + LAG) * BROKER_KILLS_PER_SESSION_KILL;
            now.begun >= begun && now.begun > now.ended && (kept_up || now.killed_sessions == wanted)
        });
    }

    /// Whether the broker has been killed often enough.
    pub fn has_all_broker_kills(&self) -> bool {
        let now = self.now();
        now.over || now.killed_brokers >= self.wanted.brokers
    }

    pub fn wait_for_session_kills(&self) {
        let wanted = self.wanted.sessions;
        self.wait_for(|now| now.killed_sessions >= wanted);
    }
}

/// Ends the load, even by a panic, so that all threads stop and the failure shows.
pub struct Over<'a>(pub &'a Load);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.change(|now| now.over = true);
    }
}

/// Spins for up to some milliseconds, with short and long times equally likely.
pub fn hesitate(random: &mut Random) {
    let most = 1 << random.below(20);
    (0..random.below(most)).for_each(|_| std::hint::spin_loop());
}
