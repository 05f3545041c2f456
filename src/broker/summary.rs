use super::core::Broker;
use crate::{
    db::{Durability, peers},
    platform::clock,
    wire::{self, PeerId, SetSummary, Summary, SummarySource},
};
use std::sync::Arc;

impl Broker {
    /// Stores a summary, unless it is generated and a better one exists. Returns the summary now in force.
    pub async fn set_summary(self: &Arc<Self>, id: &PeerId, request: SetSummary) -> wire::Result<Summary> {
        self.limits.check_summary(&request.summary)?;
        let stored = self.with_peer(id, |peer| {
            let row = &mut peer.row;
            if request.source >= row.summary_source && request.source != SummarySource::None {
                (row.summary, row.summary_source, row.last_seen) = (request.summary, request.source, clock::now());
            }
            row.clone()
        })?;
        let stands = Summary { summary: stored.summary.clone(), source: stored.summary_source };
        let job = self.commit(Durability::Fsync, move |tx| {
            peers::change(tx, &stored.id, |row| {
                (row.summary, row.summary_source) = (stored.summary, stored.summary_source);
                row.last_seen = stored.last_seen;
            })?;
            Ok(())
        });
        job.await?;
        Ok(stands)
    }
}
