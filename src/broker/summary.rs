//! What a session says it is working on.

use super::Broker;
use crate::{
    db,
    platform::clock,
    wire::{self, PeerId, SetSummary, Summary, SummarySource},
};

impl Broker {
    /// Stores a summary, unless it is a generated one and a better one is there; gives the one that stands.
    ///
    /// # Errors
    /// [`wire::Code::TooLarge`]; the store's.
    pub async fn set_summary(&self, id: &PeerId, request: SetSummary) -> wire::Result<Summary> {
        self.limits.check_summary(&request.summary)?;
        let row = {
            let mut state = self.state();
            let peer = state.peers.get_mut(id).ok_or_else(|| self.unknown_peer(id))?;
            let row = &mut peer.row;
            if request.source < row.summary_source || request.source == SummarySource::None {
                return Ok(Summary { summary: row.summary.clone(), source: row.summary_source });
            }
            row.summary = request.summary;
            row.summary_source = request.source;
            row.last_seen = clock::now();
            row.clone()
        };
        let stored = Summary { summary: row.summary.clone(), source: row.summary_source };
        self.store.write(move |c| Ok(db::peers::put(c, &row)?)).await?;
        Ok(stored)
    }
}
