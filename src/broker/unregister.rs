use super::core::Broker;
use crate::{
    db::{Durability, peers},
    platform::clock,
    wire::{self, PeerId},
};
use std::sync::Arc;

impl Broker {
    /// Removes the peer from the list at once; its mailbox stays.
    pub async fn unregister(self: &Arc<Self>, id: &PeerId) -> wire::Result<()> {
        let now = clock::now();
        self.with_peer(id, |peer| {
            (peer.row.ended, peer.row.last_seen) = (true, now);
            peer.stream = None;
            peer.wake();
        })?;
        self.changes.hint();
        let peer = id.clone();
        let job = self.commit(Durability::Process, move |tx| {
            Ok(peers::change(tx, &peer, |row| (row.ended, row.last_seen) = (true, now)).map(drop)?)
        });
        job.await?;
        tracing::info!(peer = %id, "{} has left", self.roster().called(id));
        Ok(())
    }
}
