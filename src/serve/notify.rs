//! Telling the service manager: ready, still working, stopping.

use crate::{broker::Broker, platform::manager::tell, wire::Code};
use sd_notify::NotifyState;
use std::{io, sync::Arc, time::Duration};

/// Shortest time between two updates of the status line. Every message triggers one, and only people read the line.
const PACE: Duration = Duration::from_millis(100);

/// Tells the service manager, if there is one, without waiting: a manager with a full queue must not delay the broker. Returns
/// whether the message was sent.
pub(super) fn say(states: &[NotifyState<'_>]) -> bool {
    heard(tell(states, false))
}

fn heard(told: io::Result<()>) -> bool {
    match &told {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => tracing::debug!("the service manager's queue is full"),
        Err(error) => tracing::warn!(%error, "telling the service manager failed: {error}"),
    }
    told.is_ok()
}

/// Reports that the broker is ready, then each change in the number of peers, which `systemctl --user status` shows.
pub(super) async fn ready(broker: &Arc<Broker>) -> impl Future<Output = ()> + use<> {
    let mut watch = broker.watch().await;
    let mut said = watch.counts().0;
    // The manager waits for this message, so the broker waits for room in the manager's queue.
    heard(tell(&[NotifyState::Ready, NotifyState::Status(&status(said))], true));
    async move {
        while watch.next().await.is_some() {
            let peers = watch.counts().0;
            if peers != said && say(&[NotifyState::Status(&status(peers))]) {
                said = peers;
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

fn status(peers: u32) -> String {
    format!("{peers} peer{}", if peers == 1 { "" } else { "s" })
}

/// Pings the watchdog while the broker works: each ping follows a job through the database's writer. Returns at once if no
/// watchdog was requested.
pub(super) async fn watchdog(broker: Arc<Broker>) {
    // Zero is no watchdog, and half the time allowed is the pace, as sd_watchdog_enabled(3) says.
    let Some(patience) = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero()) else { return };
    let mut ticks = tokio::time::interval((patience / 2).max(Duration::from_millis(1)));
    loop {
        tokio::select! {
            () = broker.stopped() => return,
            _ = ticks.tick() => {}
        }
        match broker.check().await {
            Ok(()) => _ = say(&[NotifyState::Watchdog]),
            // The writer answers. A new broker would wait for the same lock.
            Err(error) if error.code == Code::DatabaseLocked => _ = say(&[NotifyState::Watchdog]),
            Err(error) => tracing::error!(%error, "the writer fails; the watchdog is not pinged: {error}"),
        }
    }
}
