//! A message to everyone in a scope: an ordinary message to each, all in one transaction.
//!
//! Each copy counts like a message of its own. A recipient that cannot take it is refused alone; a rate that does not hold all
//! of them refuses all, before anything is stored. Said again under the same key, nobody gets it twice.

use super::{Broker, Caller, send::sender_id};
use crate::{
    mailbox::messages::{self, NewMessage},
    platform::{clock, random},
    wire::{self, Broadcast, Code, EVERYONE, Error, NotSent, PeerId, Scope, SendRequest, Sent, Status, Timestamp},
};

impl Broker {
    /// Accepts a message to a peer, or to everyone in a scope. Once this answers, what was accepted is on disk.
    ///
    /// # Errors
    /// As [`Broker::send`] and [`Broker::list`].
    pub async fn send_to(&self, caller: &Caller, request: SendRequest) -> wire::Result<Sent> {
        let scope = request.to.trim().strip_prefix(EVERYONE).map(str::parse::<Scope>);
        match scope {
            Some(scope) => Ok(Sent::Everyone(self.send_to_everyone(caller, scope?, request).await?)),
            None => Ok(Sent::One(self.send(caller, request).await?)),
        }
    }

    async fn send_to_everyone(&self, caller: &Caller, scope: Scope, request: SendRequest) -> wire::Result<Broadcast> {
        self.limits.check_text(&request.text)?;
        if request.reply_to.as_deref().is_some_and(|id| !id.is_empty()) {
            let what = "replyTo cannot be used with a scope: an answer goes to one peer";
            return Err(Error::new(Code::InvalidRequest, what).help("leave replyTo out, or name the peer that asked"));
        }
        if let Some(key) = &request.key {
            super::register::check_token("key", key)?;
        }
        let (now, from) = (clock::now(), sender_id(caller)?);
        let mut to = self.present(&from, self.in_scope(Some(&from), scope, request.cwd.as_deref())?, now);
        if let Some(key) = request.key.clone() {
            let sender = from.clone();
            // Who got a copy the first time may be gone by now; it is told of all the same.
            let before = self.store.read(move |c| Ok(messages::copies_of(c, &sender, &key)?)).await?;
            to.extend(before.iter().map(|id| PeerId::lenient(id)).filter(|id| !to.contains(id)).collect::<Vec<_>>());
        }
        let copy = |to: PeerId| NewMessage {
            tag: random::message_tag(),
            from: from.clone(),
            text: request.text.clone(),
            reply_to: None,
            key: request.key.as_ref().map(|key| messages::key_of_copy(key, &to)),
            sent_at: now,
            expires_at: now.plus(self.limits.expiry),
            passes: false,
            bypassed: false,
            held: None,
            to,
        };
        let copies = to.into_iter().map(copy).collect();
        let (mut receipts, mut refused) = (Vec::new(), Vec::new());
        for (to, copy) in self.accept(caller, copies, true).await? {
            match copy {
                Ok(accepted) => receipts.push(self.tell(accepted, now).await?),
                Err(error) => refused.push(NotSent { to_name: self.name(&to), to, error }),
            }
        }
        receipts.sort_by(|a, b| (&a.to_name, &a.to).cmp(&(&b.to_name, &b.to)));
        Ok(Broadcast { receipts, refused })
    }

    /// The live peers that `wanted` picks, but `from`.
    fn present(&self, from: &PeerId, wanted: impl Fn(&crate::db::peers::PeerRow) -> bool, now: Timestamp) -> Vec<PeerId> {
        let state = self.state();
        let present = state.peers.values().filter(|peer| peer.row.id != *from && wanted(&peer.row));
        present.filter(|peer| peer.status(now) != Status::Gone).map(|peer| peer.row.id.clone()).collect()
    }

    fn name(&self, id: &PeerId) -> String {
        self.state().peers.get(id).map_or_else(|| id.to_string(), |peer| peer.row.name.clone())
    }
}
