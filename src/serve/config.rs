//! The broker's settings, from its environment. A value that cannot be used stops the broker with an error that names it.

use super::idle;
use crate::{
    broker::Limits,
    platform::{
        paths,
        settings::{self, InvalidSetting},
    },
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

#[derive(Debug, Clone)]
pub(super) struct Config {
    pub socket: PathBuf,
    /// The TCP port on 127.0.0.1; 0 for any free one.
    pub port: u16,
    /// Where the metrics are served for Prometheus, if they are.
    pub metrics: Option<SocketAddr>,
    pub database: PathBuf,
    pub limits: Limits,
    /// How long to run without a connection; none for ever.
    pub idle_exit: Option<Duration>,
}

impl Config {
    /// Reads the environment. Fails at the first variable with an unusable value. `comes_back`: the next connection starts the broker
    /// again if it has exited.
    pub fn from_env(comes_back: bool) -> Result<Self, InvalidSetting> {
        Ok(Self {
            limits: Limits::from_env()?,
            socket: paths::socket()?,
            port: settings::PORT.parse()?,
            metrics: settings::METRICS.set()?.map(|_| settings::METRICS.read(settings::loopback)).transpose()?,
            database: paths::database()?,
            idle_exit: idle::exit_after(comes_back)?,
        })
    }
}
