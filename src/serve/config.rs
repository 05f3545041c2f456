//! The broker's settings, from its environment. A value that cannot be used stops the broker with an error that names it.

use super::idle::IdleExit;
use crate::{
    broker::Limits,
    platform::{
        paths,
        settings::{self, InvalidSetting},
    },
};
use std::{num::NonZeroU32, path::PathBuf, time::Duration};

#[derive(Debug, Clone)]
pub(super) struct Config {
    pub socket: PathBuf,
    /// The TCP port on 127.0.0.1; 0 for any free one.
    pub port: u16,
    pub database: PathBuf,
    pub limits: Limits,
    pub idle_exit: IdleExit,
}

impl Config {
    /// Reads the environment; fails for the first variable whose value cannot be used.
    pub fn from_env() -> Result<Self, InvalidSetting> {
        let defaults = Limits::default();
        let rate = number("CLAUDE_PEERS_RATE_LIMIT", 0..=1_000_000, "messages a minute, 0 for no limit")?;
        let limits = Limits {
            per_minute: rate.map_or(defaults.per_minute, NonZeroU32::new),
            burst: number("CLAUDE_PEERS_RATE_BURST", 1..=1_000_000, "messages at once")?
                .and_then(NonZeroU32::new)
                .unwrap_or(defaults.burst),
            repeats: number("CLAUDE_PEERS_REPEAT_LIMIT", 1..=1_000_000, "times a minute")?
                .map_or(defaults.repeats, |repeats| repeats as usize),
            text_bytes: number("CLAUDE_PEERS_TEXT_LIMIT", 1..=16 * 1024 * 1024, "bytes")?
                .map_or(defaults.text_bytes, |bytes| bytes as usize),
            summary_chars: number("CLAUDE_PEERS_SUMMARY_LIMIT", 1..=100_000, "characters")?
                .map_or(defaults.summary_chars, |chars| chars as usize),
            waiting: number("CLAUDE_PEERS_WAITING_LIMIT", 1..=10_000_000, "messages")?.unwrap_or(defaults.waiting),
            expiry: span("CLAUDE_PEERS_EXPIRY")?.unwrap_or(defaults.expiry),
            history: span("CLAUDE_PEERS_HISTORY")?.unwrap_or(defaults.history),
        };
        Ok(Self {
            socket: paths::socket()?,
            port: paths::port()?,
            database: paths::database()?,
            limits,
            idle_exit: IdleExit::from_env()?,
        })
    }
}

fn number(variable: &str, range: std::ops::RangeInclusive<u32>, what: &str) -> Result<Option<u32>, InvalidSetting> {
    let allowed = format!("a whole number of {what}, {} to {}", range.start(), range.end());
    settings::parsed(variable, &allowed, |text| text.parse().ok().filter(|number| range.contains(number)))
}

fn span(variable: &str) -> Result<Option<Duration>, InvalidSetting> {
    settings::parsed(variable, "a span of time such as 90s, 30m, 12h or 7d", settings::span)
}
