//! Waits until mail waits for a peer, for a doorbell: something that tells the session so by other means. The mail itself stays where it
//! is. The user's doorbell watches any session; a session's own, which a command of the session runs, only that session.

use super::{
    core::{Broker, Caller, OnDrop},
    wait::Wait,
};
use crate::{
    mailbox::history,
    wire::{self, AwaitMail, Code, Error, Mail, MessageId, PeerId, Status},
};

impl Broker {
    /// Waits for mail for the peer `id`, as long as the peer is connected. A session that waits for its own mail is told of
    /// each message once, and of none while its user is away and no sender asks to wake it.
    pub async fn mail_for(&self, caller: &Caller, id: &str, request: AwaitMail) -> wire::Result<Mail> {
        let (id, after) = (PeerId::lenient(id), request.after.map(|id| id.parse::<MessageId>()).transpose()?);
        let is_own = caller.peer() == Some(&id);
        if !is_own {
            caller.must_be_user("a session, and only the user watches the mail of others", "run it in a terminal of your own")?;
        }
        let mut wait = Wait::new(request.wait_seconds, self.changes.hints());
        let _waits = (!wait.is_over()).then(|| self.hang_doorbell(&id));
        loop {
            let after = if is_own { self.rung(&id)? } else { after.clone() };
            let newest = self.store.glance(|view| history::newest_waiting(view, &id, after.as_ref()))?;
            let peer = self.shown(|_| false, Some(&id)).await?.myself;
            let peer = peer.ok_or_else(|| Error::new(Code::PeerNotFound, format!("Peer {id} not found")))?;
            let newest = if is_own { self.ring(&id, newest)? } else { newest };
            if newest.is_some() || peer.status != Status::Connected || wait.is_over() {
                return Ok(Mail { peer, newest });
            }
            wait.change(self, None).await?;
        }
    }

    /// Counts a doorbell as long as the returned value lives.
    fn hang_doorbell(&self, id: &PeerId) -> OnDrop<impl FnMut()> {
        let count = |change: fn(u32, u32) -> u32| {
            let counted = self.with_peer(id, |peer| peer.doorbell.waiting = change(peer.doorbell.waiting, 1));
            drop(counted); // a forgotten peer has no doorbell
            self.changes.hint();
        };
        count(u32::saturating_add);
        OnDrop(move || count(u32::saturating_sub))
    }

    /// The newest message of which the agent that now runs the session was told.
    fn rung(&self, id: &PeerId) -> wire::Result<Option<MessageId>> {
        self.with_peer(id, |peer| {
            let rung = peer.doorbell.rung.as_ref().filter(|(agent, _)| *agent == peer.row.agent);
            rung.map(|(_, message)| message.clone())
        })
    }

    /// Notes that the session is now told of mail up to `newest`, unless it is left alone.
    fn ring(&self, id: &PeerId, newest: Option<MessageId>) -> wire::Result<Option<MessageId>> {
        self.with_peer(id, |peer| {
            let told = peer.doorbell.rung.as_ref().filter(|(agent, _)| *agent == peer.row.agent).map(|(_, told)| told.seq());
            let is_new = |newest: &MessageId| told.is_none_or(|told| told < newest.seq()); // another doorbell may have rung first
            let newest = newest.filter(|newest| is_new(newest) && !peer.attended.is_left_alone());
            if let Some(newest) = &newest {
                peer.doorbell.rung = Some((peer.row.agent, newest.clone()));
            }
            newest
        })
    }
}
