//! A scrape of the metrics. It reads no message but those that wait, through an index.

use super::{core::Broker, presence::LOOK};
use crate::{
    mailbox::history,
    platform::clock,
    wire::{self, Code, Error, Status},
};

impl Broker {
    /// All metrics, as OpenMetrics text.
    pub async fn scrape(&self) -> wire::Result<String> {
        let waiting = self.store.read(history::waiting_in_all).await?;
        self.look(LOOK, |_| true).await;
        let now = clock::now();
        let present: Vec<Status> = self.roster().peers.values().map(|peer| peer.status(now)).collect();
        let text = self.metrics.text(&present, waiting, self.store.size());
        text.map_err(|error| Error::new(Code::Internal, format!("writing the metrics: {error}")))
    }

    /// Counts a request that was answered with an error.
    pub fn refused_request(&self, code: Code) {
        self.metrics.refused_request(code);
    }
}
