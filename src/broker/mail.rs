//! Waits until mail waits for a peer, for a user who tells the session by other means. The mail itself stays where it is.

use super::{
    core::{Broker, Caller},
    wait::Wait,
};
use crate::{
    mailbox::history,
    wire::{self, AwaitMail, Code, Error, Mail, MessageId, PeerId, Status},
};

impl Broker {
    /// Waits for mail for the peer `id`, as long as the peer is connected.
    pub async fn mail_for(&self, caller: &Caller, id: &str, request: AwaitMail) -> wire::Result<Mail> {
        caller.must_be_user("a session, and only the user watches the mail of others", "run it in a terminal of your own")?;
        let (id, after) = (PeerId::lenient(id), request.after.map(|id| id.parse::<MessageId>()).transpose()?);
        let mut wait = Wait::new(request.wait_seconds, self.changes.hints());
        loop {
            let newest = self.store.glance(|view| history::newest_waiting(view, &id, after.as_ref()))?;
            let peer = self.shown(|_| false, Some(&id)).await?.myself;
            let peer = peer.ok_or_else(|| Error::new(Code::PeerNotFound, format!("Peer {id} not found")))?;
            if newest.is_some() || peer.status != Status::Connected || wait.is_over() {
                return Ok(Mail { peer, newest });
            }
            wait.change(self, None).await?;
        }
    }
}
