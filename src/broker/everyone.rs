//! Sends a message to everyone in a scope: an ordinary message to each peer, all in one transaction.
//!
//! Each copy counts as a separate message. If a recipient cannot take its copy, only that copy is refused. If the rate does not
//! allow all copies, all are refused before anything is stored. If a client repeats the request under the same key, no recipient
//! gets a second copy.

use super::{
    core::{Broker, Caller},
    presence::LOOK,
};
use crate::{
    mailbox::accept::{NewMessage, copies_of, key_of_copy},
    platform::{clock, random},
    wire::{self, Broadcast, Code, Error, NotSent, PeerId, Recipient, Scope, SendRequest, Sent, Status},
};
use std::{collections::HashSet, sync::Arc};

impl Broker {
    /// Accepts a message to a peer, or to everyone in a scope. When this returns, every accepted copy is on disk.
    pub async fn send_to(self: &Arc<Self>, caller: &Caller, request: SendRequest) -> wire::Result<Sent> {
        match request.to.parse()? {
            Recipient::Everyone(scope) => {
                let sent = self.send_to_everyone(caller, scope, request).await;
                sent.map(Sent::Everyone).inspect_err(|error| self.note_refusal(caller, &format!("@{scope}"), error))
            }
            Recipient::One(_) => Ok(Sent::One(self.send(caller, request).await?)),
        }
    }

    async fn send_to_everyone(self: &Arc<Self>, caller: &Caller, scope: Scope, request: SendRequest) -> wire::Result<Broadcast> {
        if request.reply_to.as_deref().is_some_and(|id| !id.is_empty()) {
            let what = "replyTo cannot be used with a scope: an answer goes to one peer";
            return Err(Error::new(Code::InvalidRequest, what).help("leave replyTo out, or name the peer that asked"));
        }
        let cwd = request.cwd.clone();
        let wakes = request.wake;
        let draft = self.draft(caller, request)?;
        let mut recipients = self.present(&draft.from, scope, cwd.as_deref()).await?;
        if let Some(key) = draft.key.clone() {
            let sender = draft.from.clone();
            // A recipient of the first request may be gone by now; the answer still lists it.
            recipients.extend(self.store.read(move |view| copies_of(view, &sender, &key)).await?);
        }
        let copy = |to: PeerId| {
            let key = draft.key.as_ref().map(|key| key_of_copy(key, &to));
            NewMessage { tag: random::message_tag(), to, key, ..draft.clone() }
        };
        let copies = recipients.into_iter().map(copy).collect();
        let mut sent = Broadcast { receipts: Vec::new(), refused: Vec::new() };
        for (to, copy) in self.accept(caller, copies, true).await? {
            match copy {
                Ok(message) => {
                    if wakes {
                        self.ask_to_wake(&to, message.receipt.message_id.clone());
                    }
                    sent.receipts.push(self.receipt(message, draft.sent_at));
                }
                Err(error) => {
                    let to_name = self.roster().name(&to);
                    self.note_refusal(caller, &to_name, &error);
                    sent.refused.push(NotSent { to_name, to, error });
                }
            }
        }
        sent.receipts.sort_by(|a, b| (&a.to_name, &a.to).cmp(&(&b.to_name, &b.to)));
        Ok(sent)
    }

    /// The live peers in `scope`, except `from`.
    async fn present(&self, from: &PeerId, scope: Scope, cwd: Option<&str>) -> wire::Result<HashSet<PeerId>> {
        let in_scope = self.in_scope(Some(from), scope, cwd).await?;
        self.look(LOOK, |peer| in_scope(&peer.row)).await;
        let (roster, now) = (self.roster(), clock::now());
        let present = roster.peers.values().filter(|peer| peer.row.id != *from && in_scope(&peer.row));
        Ok(present.filter(|peer| peer.status(now) != Status::Gone).map(|peer| peer.row.id.clone()).collect())
    }
}
