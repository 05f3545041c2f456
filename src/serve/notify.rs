//! Telling the service manager: ready, still well, stopping.

use crate::broker::Broker;
use sd_notify::NotifyState;
use std::{sync::Arc, time::Duration};

/// Says one thing to the service manager; without one, nothing happens.
pub(super) fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "telling the service manager failed");
    }
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
            Ok(()) => say(&[NotifyState::Watchdog, NotifyState::Status(&format!("{} peers", broker.peer_count()))]),
            Err(error) => tracing::error!(%error, "not well; the watchdog is not told"),
        }
    }
}
