//! The broker's settings, from its environment. A value that cannot be used stops the broker with an error that names it.

use super::idle::IdleExit;
use crate::{
    broker::Limits,
    platform::{
        paths,
        settings::{self, InvalidSetting},
    },
};
use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

#[derive(Debug, Clone)]
pub(super) struct Config {
    pub socket: PathBuf,
    /// The TCP port on 127.0.0.1; 0 for any free one.
    pub port: u16,
    /// Where the metrics are served for Prometheus, if they are.
    pub metrics: Option<SocketAddr>,
    pub database: PathBuf,
    pub limits: Limits,
    pub idle_exit: IdleExit,
}

impl Config {
    /// Reads the environment. Fails at the first variable with an unusable value.
    pub fn from_env() -> Result<Self, InvalidSetting> {
        let limits = Limits {
            per_minute: NonZeroU32::new(settings::RATE_LIMIT.parse()?),
            burst: settings::RATE_BURST.parse()?,
            repeats: settings::REPEAT_LIMIT.parse()?,
            text_bytes: settings::TEXT_LIMIT.parse()?,
            summary_chars: settings::SUMMARY_LIMIT.parse()?,
            waiting: settings::WAITING_LIMIT.parse()?,
            expiry: settings::EXPIRY.span()?,
            history: settings::HISTORY.span()?,
        };
        Ok(Self {
            socket: paths::socket()?,
            port: settings::PORT.parse()?,
            metrics: settings::METRICS.set()?.map(|_| settings::METRICS.read(settings::loopback)).transpose()?,
            database: paths::database()?,
            limits,
            idle_exit: IdleExit::from_env()?,
        })
    }
}
