//! Exits when the broker is idle: the service manager keeps its sockets, and the next connection starts it again.
//!
//! Promises: a broker with an open connection never exits. An exit loses nothing, because a new connection waits in the socket's
//! queue for the next broker.

use crate::platform::settings::{self, InvalidSetting};
use std::time::Duration;
use tokio::sync::watch;

/// How long a broker with systemd's sockets stays up without a connection.
const DEFAULT: Duration = Duration::from_secs(600);

/// How long the broker runs without a connection, by `CLAUDE_PEERS_IDLE_EXIT`; none for ever. By default it exits only if the next
/// connection starts it again: if it `comes_back`.
pub(super) fn exit_after(comes_back: bool) -> Result<Option<Duration>, InvalidSetting> {
    let setting = settings::IDLE_EXIT;
    match setting.set()? {
        None => Ok(comes_back.then_some(DEFAULT)),
        Some(_) if setting.text()? == "off" => Ok(None),
        Some(_) => setting.span().map(Some),
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
