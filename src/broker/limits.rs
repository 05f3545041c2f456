//! The limits, each refused with a clear error to the sender, never dropped in silence.

use crate::wire::{Code, Error, PeerId, Result, Timestamp};
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::{InMemoryState, NotKeyed},
};
use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    time::Duration,
};

/// The span over which the same text to the same peer is counted.
const REPEAT_SPAN: Duration = Duration::from_secs(60);
/// How many pairs of recipient and text are remembered per sender before old ones are looked for and dropped.
const REMEMBERED: usize = 256;

/// Every limit, with the defaults of the contract; see the README for the variables that change them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest message text, in bytes.
    pub text_bytes: usize,
    /// Longest summary, in characters.
    pub summary_chars: usize,
    /// Most messages waiting for one recipient.
    pub waiting: u32,
    /// Messages a minute per sender; none: rate and repeats are not limited.
    pub per_minute: Option<NonZeroU32>,
    /// How many of them may come at once.
    pub burst: NonZeroU32,
    /// How often the same text may go to the same peer within a minute.
    pub repeats: usize,
    /// How long undelivered mail waits.
    pub expiry: Duration,
    /// How long delivered and expired messages are kept.
    pub history: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            text_bytes: 256 * 1024,
            summary_chars: 1_000,
            waiting: 1_000,
            per_minute: NonZeroU32::new(120),
            burst: NonZeroU32::new(30).unwrap_or(NonZeroU32::MIN),
            repeats: 3,
            expiry: Duration::from_secs(7 * 86_400),
            history: Duration::from_secs(30 * 86_400),
        }
    }
}

impl Limits {
    /// Refuses an empty or too long text.
    pub(super) fn check_text(&self, text: &str) -> Result<()> {
        if text.trim().is_empty() {
            return Err(Error::new(Code::EmptyMessage, "the message is empty").help("give it a text"));
        }
        if text.len() > self.text_bytes {
            let what = format!("the message has {} bytes; at most {} are taken", text.len(), self.text_bytes);
            return Err(Error::new(Code::TooLarge, what).help("send a shorter text, or put it into a file and send its path"));
        }
        Ok(())
    }

    /// Refuses a summary that is too long.
    pub(super) fn check_summary(&self, summary: &str) -> Result<()> {
        let chars = summary.chars().count();
        if chars > self.summary_chars {
            let what = format!("the summary has {chars} characters; at most {} are taken", self.summary_chars);
            return Err(Error::new(Code::TooLarge, what).help("say it in one or two sentences"));
        }
        Ok(())
    }

    /// Refuses a message to a recipient with too many waiting.
    pub(super) fn check_waiting(&self, waiting: u32, name: &str) -> Result<()> {
        if waiting >= self.waiting {
            let what = format!("{waiting} messages wait for {name} already; at most {} are kept", self.waiting);
            return Err(Error::new(Code::MailboxFull, what).help("wait until it has read some; it has been told that mail waits"));
        }
        Ok(())
    }
}

/// What one sender sent lately.
#[derive(Debug, Default)]
pub(super) struct Pace {
    rate: Option<RateLimiter<NotKeyed, InMemoryState, DefaultClock>>,
    repeats: HashMap<u64, VecDeque<Timestamp>>,
    hasher: RandomState,
}

impl Pace {
    /// Counts a message, or refuses it.
    pub(super) fn count(&mut self, limits: &Limits, to: &PeerId, text: &str, now: Timestamp) -> Result<()> {
        let Some(per_minute) = limits.per_minute else { return Ok(()) };
        let start = now.minus(REPEAT_SPAN);
        if self.repeats.len() >= REMEMBERED {
            self.repeats.retain(|_, times| times.back().is_some_and(|last| *last > start));
        }
        let times = self.repeats.entry(self.hasher.hash_one((to, text))).or_default();
        while times.front().is_some_and(|first| *first <= start) {
            times.pop_front();
        }
        if times.len() >= limits.repeats {
            let first = times.front().copied().unwrap_or(now);
            let wait = first.plus(REPEAT_SPAN).0.saturating_sub(now.0);
            let what = format!("the same text went to {to} {} times within a minute", limits.repeats);
            return Err(Error::new(Code::RepeatLimited, what)
                .help("it has been sent; do not send it again")
                .retry_after(Duration::from_millis(wait.unsigned_abs())));
        }
        let rate = self.rate.get_or_insert_with(|| RateLimiter::direct(Quota::per_minute(per_minute).allow_burst(limits.burst)));
        if let Err(not_until) = rate.check() {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            let what = format!("more than {per_minute} messages a minute (at most {} at once)", limits.burst);
            return Err(Error::new(Code::RateLimited, what)
                .help(format!("wait {} s and send it again", wait.as_secs() + 1))
                .retry_after(wait));
        }
        times.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeMap;

    proptest! {
        /// Whatever is sent when: of one text to one peer, no minute sees more than the limit, and nothing else is refused.
        #[test]
        fn repeats_are_counted_over_any_minute(sent in vec((0_i64..40_000, 0..2, 0..2), 1..60), repeats in 1_usize..4) {
            let most = NonZeroU32::new(u32::MAX).unwrap();
            let limits = Limits { per_minute: Some(most), burst: most, repeats, ..Limits::default() };
            let (mut pace, mut now) = (Pace::default(), 0);
            let mut accepted: BTreeMap<_, Vec<i64>> = BTreeMap::new();
            for (later, to, text) in sent {
                now += later;
                let before = accepted.entry((to, text)).or_default();
                let lately = before.iter().filter(|at| **at > now - 60_000).count();
                let passed = pace.count(&limits, &peer(&format!("p{to}")), &format!("t{text}"), Timestamp(now)).is_ok();
                prop_assert_eq!(passed, lately < repeats);
                before.extend(passed.then_some(now));
            }
        }
    }

    fn peer(id: &str) -> PeerId {
        id.parse().unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let (mut pace, limits) = (Pace::default(), Limits::default());
        let mut passed = 0;
        while pace.count(&limits, &peer("a"), &format!("text {passed}"), Timestamp(0)).is_ok() {
            passed += 1;
        }
        assert_eq!(passed, 30);
    }

    #[test]
    fn the_same_text_passes_three_times_a_minute() {
        let (mut pace, limits) = (Pace::default(), Limits::default());
        for at in [0, 1, 2] {
            pace.count(&limits, &peer("a"), "thanks", Timestamp(at)).unwrap();
        }
        let refused = pace.count(&limits, &peer("a"), "thanks", Timestamp(10_000)).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_ms), (Code::RepeatLimited, Some(50_000)));
        pace.count(&limits, &peer("b"), "thanks", Timestamp(10_000)).unwrap();
        pace.count(&limits, &peer("a"), "thanks", Timestamp(60_000)).unwrap();
    }

    #[test]
    fn a_rate_of_zero_turns_both_off() {
        let (mut pace, limits) = (Pace::default(), Limits { per_minute: None, ..Limits::default() });
        for _ in 0..1_000 {
            pace.count(&limits, &peer("a"), "thanks", Timestamp(0)).unwrap();
        }
    }
}
