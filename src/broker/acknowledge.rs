use super::core::{Broker, unknown_peer};
use crate::{
    mailbox::acknowledge::acknowledge,
    platform::clock,
    wire::{self, Acknowledge, Acknowledged, Code, Error, Outcome, PeerId},
};
use std::sync::Arc;

/// Most messages acknowledged at once: more than a mailbox holds by default.
const MOST_ACKNOWLEDGED: usize = 10_000;

impl Broker {
    /// Takes note of what became of messages.
    pub async fn acknowledge(self: &Arc<Self>, id: &PeerId, request: Acknowledge) -> wire::Result<Acknowledged> {
        if request.messages.len() > MOST_ACKNOWLEDGED {
            let what = format!("more than {MOST_ACKNOWLEDGED} messages in one acknowledgement");
            return Err(Error::new(Code::InvalidRequest, what));
        }
        if !self.roster().peers.contains_key(id) {
            return Err(unknown_peer(id));
        }
        let (peer, route, now) = (id.clone(), request.route, clock::now());
        let is_delivered = request.messages.iter().any(|acknowledged| acknowledged.outcome == Outcome::Delivered);
        let job = move |tx: &crate::db::Tx<'_>| Ok(acknowledge(tx, &peer, route, request.messages, now)?);
        // A power cut may undo every other outcome: the message is then shown again, as a repeat. *Delivered* is told to the
        // sender for good.
        let changed = if is_delivered { self.commit(job).await? } else { self.note(job).await? };
        tracing::debug!(peer = %id, %route, changed, "acknowledged");
        Ok(Acknowledged { changed })
    }
}
