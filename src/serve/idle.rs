//! Exits when the broker is idle: the service manager keeps its sockets, and the next connection starts it again.
//!
//! Promises: a broker with an open connection never exits. An exit loses nothing, because a new connection waits in the socket's
//! queue for the next broker.

use crate::platform::settings::{self, InvalidSetting};
use std::time::Duration;
use tokio::sync::watch;

/// How long a broker with systemd's sockets stays up without a connection.
const DEFAULT: Duration = Duration::from_secs(600);

/// The setting `CLAUDE_PEERS_IDLE_EXIT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdleExit {
    /// After ten minutes if systemd keeps the sockets, else never.
    #[default]
    Default,
    Off,
    /// After this long without a connection.
    After(Duration),
}

impl IdleExit {
    pub(super) fn from_env() -> Result<Self, InvalidSetting> {
        let setting = settings::IDLE_EXIT;
        match setting.set()? {
            None => Ok(Self::Default),
            Some(_) if setting.text()? == "off" => Ok(Self::Off),
            Some(_) => setting.span().map(Self::After),
        }
    }

    /// The idle time before the broker exits, if it ever does. `comes_back`: the next connection starts the broker again.
    pub(super) fn span(self, comes_back: bool) -> Option<Duration> {
        match self {
            Self::Default => comes_back.then_some(DEFAULT),
            Self::Off => None,
            Self::After(span) => Some(span),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Open(watch::Sender<usize>);

/// An open connection; counted as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(watch::Sender<usize>);

impl Open {
    pub(super) fn count(&self) -> Counted {
        self.0.send_modify(|open| *open += 1);
        Counted(self.0.clone())
    }

    /// Resolves after `span` without any connection; never without a span.
    pub(super) async fn idle_for(&self, span: Option<Duration>) {
        let Some(span) = span else { return std::future::pending().await };
        let mut open = self.0.subscribe();
        loop {
            // `self` holds the sender, so this cannot fail.
            drop(open.wait_for(|open| *open == 0).await);
            tokio::select! {
                () = tokio::time::sleep(span) => return,
                _ = open.changed() => {}
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}
