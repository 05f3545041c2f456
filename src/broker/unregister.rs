use super::core::{Broker, unknown_peer};
use crate::{
    db::peers,
    mailbox::Effects,
    platform::clock,
    wire::{self, PeerId},
};
use std::sync::Arc;

impl Broker {
    /// The peer says goodbye: it leaves the list at once; its mailbox stays.
    pub async fn unregister(self: &Arc<Self>, id: &PeerId) -> wire::Result<()> {
        let now = clock::now();
        {
            let mut roster = self.roster();
            let peer = roster.peers.get_mut(id).ok_or_else(|| unknown_peer(id))?;
            (peer.row.ended, peer.row.last_seen) = (true, now);
            peer.stream = None;
            peer.wake();
        }
        self.changes.hint();
        let peer = id.clone();
        self.note(move |tx| {
            peers::change(tx, &peer, |row| (row.ended, row.last_seen) = (true, now))?;
            Ok(((), Effects::default()))
        })
        .await?;
        tracing::info!(peer = %id, "left");
        Ok(())
    }
}
