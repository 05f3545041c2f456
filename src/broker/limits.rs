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

/// Every limit. `platform::settings` has the variables that set them, and their defaults.
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

#[cfg(test)]
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
}

/// A sender's recent messages.
#[derive(Debug, Default)]
pub(super) struct Pace {
    rate: Option<RateLimiter<NotKeyed, InMemoryState, DefaultClock>>,
    repeats: HashMap<u64, VecDeque<Timestamp>>,
    hasher: RandomState,
}

impl Pace {
    /// Refuses a text that went to this peer too often.
    pub(super) fn check_repeat(&mut self, limits: &Limits, to: &PeerId, text: &str, now: Timestamp) -> Result<()> {
        if limits.per_minute.is_none() {
            return Ok(());
        }
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
            let wait = first.plus(REPEAT_SPAN).as_millis().saturating_sub(now.as_millis());
            let what = format!("the same text went to {to} {} times within a minute", limits.repeats);
            return Err(Error::new(Code::RepeatLimited, what)
                .help("it has been sent; do not send it again")
                .retry_after(Duration::from_millis(wait.unsigned_abs())));
        }
        Ok(())
    }

    /// Counts these messages with one text, or refuses all of them.
    pub(super) fn count(&mut self, limits: &Limits, to: &[PeerId], text: &str, now: Timestamp) -> Result<()> {
        let (Some(per_minute), Ok(many)) = (limits.per_minute, u32::try_from(to.len())) else { return Ok(()) };
        let Some(many) = NonZeroU32::new(many) else { return Ok(()) };
        let rate = self.rate.get_or_insert_with(|| RateLimiter::direct(Quota::per_minute(per_minute).allow_burst(limits.burst)));
        let fits = rate.check_n(many).map_err(|_| {
            let what = format!("{many} messages at once, one for each recipient; at most {} are taken", limits.burst);
            Error::new(Code::RateLimited, what).help("send it to a narrower scope, or to the peers that it concerns")
        })?;
        if let Err(not_until) = fits {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            let what = format!("more than {per_minute} messages a minute (at most {} at once)", limits.burst);
            return Err(Error::new(Code::RateLimited, what)
                .help(format!("wait {} s and send it again", wait.as_secs() + 1))
                .retry_after(wait));
        }
        for to in to {
            self.repeats.entry(self.hasher.hash_one((to, text))).or_default().push_back(now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeMap;

    proptest! {
        /// No minute sees more of one text to one peer than the limit, and every other message passes.
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
                let passed = send(&mut pace, &limits, &format!("p{to}"), &format!("t{text}"), now).is_ok();
                prop_assert_eq!(passed, lately < repeats);
                before.extend(passed.then_some(now));
            }
        }
    }

    fn send(pace: &mut Pace, limits: &Limits, to: &str, text: &str, now: i64) -> Result<()> {
        let to = to.parse().unwrap();
        pace.check_repeat(limits, &to, text, Timestamp::from_millis(now))?;
        pace.count(limits, &[to], text, Timestamp::from_millis(now))
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let (mut pace, limits) = (Pace::default(), Limits::default());
        let mut passed = 0;
        while send(&mut pace, &limits, "a", &format!("text {passed}"), 0).is_ok() {
            passed += 1;
        }
        assert_eq!(passed, 30);
    }

    #[test]
    fn the_same_text_passes_three_times_a_minute() {
        let (mut pace, limits) = (Pace::default(), Limits::default());
        for at in [0, 1, 2] {
            send(&mut pace, &limits, "a", "thanks", at).unwrap();
        }
        let refused = send(&mut pace, &limits, "a", "thanks", 10_000).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_ms), (Code::RepeatLimited, Some(50_000)));
        send(&mut pace, &limits, "b", "thanks", 10_000).unwrap();
        send(&mut pace, &limits, "a", "thanks", 60_000).unwrap();
    }

    #[test]
    fn copies_for_many_pass_together_or_not_at_all() {
        let (mut pace, limits) = (Pace::default(), Limits::default());
        let peers: Vec<PeerId> = (0..31).map(|number| format!("p{number}").parse().unwrap()).collect();
        let refused = pace.count(&limits, &peers, "all", Timestamp::from_millis(0)).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_ms), (Code::RateLimited, None), "it will never fit");
        pace.count(&limits, &peers[..20], "all", Timestamp::from_millis(0)).unwrap();
        assert!(pace.count(&limits, &peers[..11], "more", Timestamp::from_millis(0)).unwrap_err().retry_after_ms.is_some());
        pace.count(&limits, &peers[..10], "more", Timestamp::from_millis(0)).unwrap();
        pace.count(&limits, &[], "nobody", Timestamp::from_millis(0)).unwrap();
    }

    #[test]
    fn a_rate_of_zero_turns_both_off() {
        let (mut pace, limits) = (Pace::default(), Limits { per_minute: None, ..Limits::default() });
        for _ in 0..1_000 {
            send(&mut pace, &limits, "a", "thanks", 0).unwrap();
        }
    }
}
