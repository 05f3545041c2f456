use super::core::{Broker, unknown_peer};
use crate::{
    db::peers,
    mailbox::Effects,
    platform::clock,
    wire::{self, PeerId, SetSummary, Summary, SummarySource},
};
use std::sync::Arc;

impl Broker {
    /// Stores a summary, unless it is a generated one and a better one is there; returns the one that stands.
    pub async fn set_summary(self: &Arc<Self>, id: &PeerId, request: SetSummary) -> wire::Result<Summary> {
        self.limits.check_summary(&request.summary)?;
        let stored = {
            let mut roster = self.roster();
            let row = &mut roster.peers.get_mut(id).ok_or_else(|| unknown_peer(id))?.row;
            if request.source >= row.summary_source && request.source != SummarySource::None {
                (row.summary, row.summary_source, row.last_seen) = (request.summary, request.source, clock::now());
            }
            row.clone()
        };
        let stands = Summary { summary: stored.summary.clone(), source: stored.summary_source };
        self.commit(move |tx| {
            peers::change(tx, &stored.id, |row| {
                (row.summary, row.summary_source) = (stored.summary, stored.summary_source);
                row.last_seen = stored.last_seen;
            })?;
            Ok(((), Effects::default()))
        })
        .await?;
        Ok(stands)
    }
}
