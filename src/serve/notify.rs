//! Telling the service manager: ready, still well, stopping.

use crate::{broker::Broker, settings};
use sd_notify::NotifyState;
use std::{sync::Arc, time::Duration};

/// Says one thing to the service manager; without one, nothing happens.
pub(super) fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "telling the service manager failed");
    }
}

/// Says that the broker is ready.
pub(super) fn ready(broker: &Broker) {
    say(&[NotifyState::Ready, NotifyState::Status(&status(broker.peer_count()))]);
}

/// Tells how many peers there are, whenever that changes; `systemctl --user status` shows it.
pub(super) async fn report(broker: Arc<Broker>) {
    if settings::raw("NOTIFY_SOCKET").is_none() {
        return;
    }
    let (mut watch, mut said) = (broker.watch(), None);
    loop {
        let peers = broker.peer_count();
        if said.replace(peers) != Some(peers) {
            say(&[NotifyState::Status(&status(peers))]);
        }
        if watch.next().await.is_none() {
            return;
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
