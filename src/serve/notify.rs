//! Telling the service manager: ready, still well, stopping.

use crate::broker::Broker;
use sd_notify::NotifyState;
use std::{sync::Arc, time::Duration};

/// Shortest time between two looks at the peers: every message is a reason for one, and a person reads the status line.
const PACE: Duration = Duration::from_millis(100);

/// Says one thing to the service manager; without one, nothing happens.
pub(super) fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "telling the service manager failed");
    }
}

/// Says that the broker is ready, then how many peers there are, whenever that changes; `systemctl --user status` shows it.
pub(super) fn ready(broker: &Arc<Broker>) -> impl Future<Output = ()> + use<> {
    let (mut watch, mut said) = (broker.watch(), broker.peer_count());
    say(&[NotifyState::Ready, NotifyState::Status(&status(said))]);
    let broker = broker.clone();
    async move {
        while watch.next().await.is_some() {
            let peers = broker.peer_count();
            if peers != said {
                said = peers;
                say(&[NotifyState::Status(&status(peers))]);
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

fn status(peers: u32) -> String {
    format!("{peers} peer{}", if peers == 1 { "" } else { "s" })
}

/// Pings the watchdog as long as the broker really works: each ping follows a job through the writer, the loop that does
/// the work. Ends at once where no watchdog was asked for.
pub(super) async fn watchdog(broker: Arc<Broker>) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    // Half the time allowed, as sd_watchdog_enabled(3) recommends.
    let mut ticks = tokio::time::interval((patience / 2).max(Duration::from_millis(1)));
    loop {
        tokio::select! {
            () = broker.stopped() => return,
            _ = ticks.tick() => {}
        }
        match broker.check().await {
            Ok(()) => say(&[NotifyState::Watchdog]),
            Err(error) => tracing::error!(%error, "not well; the watchdog is not told"),
        }
    }
}
