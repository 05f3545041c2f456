//! The limits. A message that exceeds one is refused with a clear error to its sender.

use crate::{
    platform::settings::{self, InvalidSetting},
    wire::{Code, Error, PeerId, Result, Timestamp},
};
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    time::Duration,
};

/// The time over which repeats of a text to a peer are counted.
const REPEAT_SPAN: Duration = Duration::from_secs(60);
/// A container's sessions may send as many messages as this many sessions outside, however many they are.
const IN_CONTAINER: NonZeroU32 = NonZeroU32::MIN.saturating_add(7);
/// How many pairs of recipient and text are remembered per sender before old ones are dropped.
const REMEMBERED: usize = 256;

/// All limits. `platform::settings` defines the variables that set them, and their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest message text, in bytes.
    pub text_bytes: usize,
    /// Longest summary, in characters.
    pub summary_chars: usize,
    /// Most messages waiting for one recipient.
    pub waiting: u32,
    /// Messages per minute and sender. If unset, neither the rate nor repeats are limited.
    pub per_minute: Option<NonZeroU32>,
    /// How many messages a sender may send at once.
    pub burst: NonZeroU32,
    /// How often the same text may go to the same peer within a minute.
    pub repeats: usize,
    /// How long undelivered messages wait.
    pub expiry: Duration,
    /// How long delivered and expired messages are kept.
    pub history: Duration,
}

impl Limits {
    /// The limits that the environment sets.
    pub fn from_env() -> Result<Self, InvalidSetting> {
        Ok(Self {
            per_minute: NonZeroU32::new(settings::RATE_LIMIT.parse()?),
            burst: settings::RATE_BURST.parse()?,
            repeats: settings::REPEAT_LIMIT.parse()?,
            text_bytes: settings::TEXT_LIMIT.parse()?,
            summary_chars: settings::SUMMARY_LIMIT.parse()?,
            waiting: settings::WAITING_LIMIT.parse()?,
            expiry: settings::EXPIRY.span()?,
            history: settings::HISTORY.span()?,
        })
    }

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

    /// As much of a summary as is taken.
    pub(super) fn cut_summary(&self, summary: &str) -> String {
        summary.chars().take(self.summary_chars).collect()
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
    rate: Option<DefaultDirectRateLimiter>,
    /// For the hash of a recipient and a text: the times it was sent within the last minute.
    repeats: HashMap<u64, VecDeque<Timestamp>>,
    hasher: RandomState,
}

impl Pace {
    /// Refuses a text that was sent to this peer too often.
    pub(super) fn check_repeat(&mut self, limits: &Limits, to: &PeerId, text: &str, now: Timestamp) -> Result<()> {
        if limits.per_minute.is_none() {
            return Ok(());
        }
        let start = now.minus(REPEAT_SPAN);
        if self.repeats.len() >= REMEMBERED {
            self.repeats.retain(|_, times| times.back().is_some_and(|last| *last > start));
        }
        let times = self.repeats.entry(self.hasher.hash_one((to, text))).or_default();
        times.retain(|at| *at > start);
        let Some(first) = times.front().filter(|_| times.len() >= limits.repeats) else { return Ok(()) };
        let wait = first.plus(REPEAT_SPAN).as_millis().saturating_sub(now.as_millis());
        let what = format!("the same text went to {to} {} times within a minute", limits.repeats);
        Err(Error::new(Code::RepeatLimited, what)
            .help("it has been sent; do not send it again")
            .retry_after(Duration::from_millis(wait.unsigned_abs())))
    }

    /// Counts one message with this text for each recipient, or refuses all of them.
    pub(super) fn count(&mut self, limits: &Limits, to: &[PeerId], text: &str, now: Timestamp) -> Result<()> {
        let Some(per_minute) = limits.per_minute else { return Ok(()) };
        self.count_all(per_minute, limits.burst, to.len())?;
        for to in to {
            self.repeats.entry(self.hasher.hash_one((to, text))).or_default().push_back(now);
        }
        Ok(())
    }

    /// Counts so many messages of the sessions in a container, or refuses all of them.
    pub(super) fn count_in_container(&mut self, limits: &Limits, many: usize) -> Result<()> {
        let Some(per_minute) = limits.per_minute else { return Ok(()) };
        self.count_all(per_minute.saturating_mul(IN_CONTAINER), limits.burst.saturating_mul(IN_CONTAINER), many)
    }

    fn count_all(&mut self, per_minute: NonZeroU32, burst: NonZeroU32, many: usize) -> Result<()> {
        let Some(many) = u32::try_from(many).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        let rate = self.rate.get_or_insert_with(|| RateLimiter::direct(Quota::per_minute(per_minute).allow_burst(burst)));
        let fits = rate.check_n(many).map_err(|_| {
            let what = format!("{many} messages at once, one for each recipient; at most {burst} are taken");
            Error::new(Code::RateLimited, what).help("send it to a narrower scope, or to the peers that it concerns")
        })?;
        fits.map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            let what = format!("more than {per_minute} messages a minute (at most {burst} at once)");
            Error::new(Code::RateLimited, what).help(format!("wait {} s and send it again", wait.as_secs() + 1)).retry_after(wait)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        /// Within any minute, one text to one peer passes only up to the limit; every other message passes.
        #[test]
        fn repeats_are_counted_over_any_minute(sent in vec((0_i64..40_000, 0..2, 0..2), 1..60), repeats in 1_usize..4) {
            let most = NonZeroU32::new(u32::MAX).unwrap();
            let limits = Limits { per_minute: Some(most), burst: most, repeats, ..Limits::from_env().unwrap() };
            let (mut pace, mut now, mut accepted) = (Pace::default(), 0, HashMap::<_, Vec<i64>>::new());
            for (later, to, text) in sent {
                now += later;
                let before = accepted.entry((to, text)).or_default();
                let lately = before.iter().filter(|at| **at > now - 60_000).count();
                let (to, text, at) = (format!("p{to}").parse().unwrap(), format!("t{text}"), Timestamp::from_millis(now));
                let passed = pace.check_repeat(&limits, &to, &text, at).and_then(|()| pace.count(&limits, &[to], &text, at));
                prop_assert_eq!(passed.is_ok(), lately < repeats);
                before.extend(passed.is_ok().then_some(now));
            }
        }
    }
}
