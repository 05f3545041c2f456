//! Waits until mail waits for a peer, for a user who tells the session by other means. The mail itself stays where it is.

use super::core::{Broker, Caller};
use crate::{
    db,
    mailbox::history,
    wire::{self, AwaitMail, Code, Error, Mail, MessageId, PeerId, Status},
};
use std::time::Duration;
use tokio::time::Instant;

/// The longest wait of one request, in seconds.
const LONGEST_WAIT: u32 = 3_600;

impl Broker {
    /// Waits for mail for the peer `id`, as long as the peer is connected.
    pub async fn mail_for(&self, caller: &Caller, id: &str, request: AwaitMail) -> wire::Result<Mail> {
        caller.must_be_user("a session, and only the user watches the mail of others", "run it in a terminal of your own")?;
        let (id, after) = (PeerId::lenient(id), request.after.map(|id| id.parse::<MessageId>()).transpose()?);
        let wait = Duration::from_secs(u64::from(request.wait_seconds.unwrap_or(0).min(LONGEST_WAIT)));
        let deadline = Instant::now() + wait;
        let mut changes = self.changes.hints();
        loop {
            let newest = self.store.glance(|view| history::newest_waiting(view, &id, after.as_ref()))?;
            let peer = self.shown(|_| false, Some(&id)).await?.myself;
            let peer = peer.ok_or_else(|| Error::new(Code::PeerNotFound, format!("Peer {id} not found")))?;
            if newest.is_some() || peer.status != Status::Connected || Instant::now() >= deadline {
                return Ok(Mail { peer, newest });
            }
            tokio::select! {
                biased;
                () = self.stopped() => return Err(db::Error::Closed.into()),
                () = tokio::time::sleep_until(deadline) => {}
                changed = changes.changed() => drop(changed),
            }
        }
    }
}
