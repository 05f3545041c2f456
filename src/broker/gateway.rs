//! The gateway: a program of the user's that speaks for the peers of other machines, takes the mail for them, and hands in theirs. Every
//! request can be repeated without harm.

use super::{
    core::{Broker, Caller, OnDrop},
    machines::check_number,
    wait::Wait,
};
use crate::{
    db::{self, Durability, PeerRow},
    mailbox::{
        Message,
        accept::{NewMessage, Terms, accept},
        gateway,
    },
    platform::{clock, random},
    wire::{
        self, Acknowledged, CLI_SENDER, Code, Confirm, Error, Forwarded, MachineName, Outgoing, OutgoingMessage, OutgoingReceipt,
        PeerId, Receive, Received, RemoteMessage, RemotePeer, RemoteReceipt, SendRequest, TakeOutgoing,
    },
};
use std::sync::Arc;

/// How many messages or receipts may be acknowledged or confirmed at once.
const MOST_AT_ONCE: usize = 10_000;

impl Broker {
    /// What has to go to other machines. Waits for it if there is nothing.
    pub async fn take_outgoing(&self, request: TakeOutgoing) -> wire::Result<Outgoing> {
        let mut wait = Wait::new(request.wait_seconds, self.changes.hints());
        self.roster().gateway.enter();
        let _leave = OnDrop(|| self.roster().gateway.leave());
        loop {
            let outgoing = self.outgoing()?;
            if !outgoing.messages.is_empty() || !outgoing.receipts.is_empty() || wait.is_over() {
                return Ok(outgoing);
            }
            wait.change(self, None).await?;
        }
    }

    fn outgoing(&self) -> wire::Result<Outgoing> {
        let (messages, receipts) = self.store.glance(|view| {
            let mut messages = Vec::new();
            for message in gateway::outgoing(view)? {
                let Some(machine) = MachineName::of(&message.receipt.to) else { continue };
                let named = gateway::named_there(view, &machine, &message)?;
                messages.push((machine, message, named));
            }
            Ok::<_, db::Error>((messages, gateway::untold(view)?))
        })?;
        let outgoing = |(machine, message, named)| self.outgoing_message(machine, message, named);
        let receipt = |(message, there): (Message, wire::MessageId)| {
            let wire::Receipt { message_id, from, state, route, .. } = message.receipt;
            let receipt = RemoteReceipt { id: there, state, route, refusal: None };
            Some(OutgoingReceipt { machine: MachineName::of(&from)?, id: message_id, receipt })
        };
        Ok(Outgoing {
            messages: messages.into_iter().filter_map(outgoing).collect(),
            receipts: receipts.into_iter().filter_map(receipt).collect(),
        })
    }

    fn outgoing_message(
        &self,
        machine: MachineName,
        message: Message,
        (reply_to, follows): (Option<wire::MessageId>, Option<wire::MessageId>),
    ) -> Option<OutgoingMessage> {
        let wire::Receipt { message_id: id, from, to, sent_at, expires_at, .. } = message.receipt;
        let to = machine.id_there(&to)?;
        let (from, bypasses) = match self.roster().peers.get(&from).map(|peer| &peer.row) {
            Some(row) => {
                let (name, cwd, summary) = (row.name.clone(), row.cwd.clone(), row.summary.clone());
                let (git_repo, git_branch) = row.git.clone().map_or((None, None), |git| (Some(git.repo), git.branch));
                (RemotePeer { id: from, name, cwd, git_repo, git_branch, summary }, row.bypasses_for(None))
            }
            None => {
                let (name, cwd, summary) = (from.to_string(), String::new(), String::new());
                (RemotePeer { id: from, name, cwd, git_repo: None, git_branch: None, summary }, false)
            }
        };
        let message = RemoteMessage { id, from, bypasses, to, text: message.text, sent_at, expires_at, reply_to, follows };
        Some(OutgoingMessage { machine, message })
    }

    /// Records what is stored on its way to another machine.
    pub async fn forwarded(self: &Arc<Self>, Forwarded { messages, receipts }: Forwarded) -> wire::Result<Acknowledged> {
        check_number("messages", messages.len().max(receipts.len()), MOST_AT_ONCE)?;
        // A power cut may undo it: then both are forwarded again, which does no harm.
        let job =
            self.commit(Durability::Process, move |tx| Ok(gateway::forward(tx, &messages)? + gateway::tell(tx, &receipts)?));
        Ok(Acknowledged { changed: job.await? })
    }

    /// Records what became of messages to peers of another machine.
    pub async fn confirm(self: &Arc<Self>, Confirm { machine, receipts }: Confirm) -> wire::Result<Acknowledged> {
        check_number("receipts", receipts.len(), MOST_AT_ONCE)?;
        let wait = self.limits.expiry;
        let job = self.commit(Durability::Fsync, move |tx| gateway::confirm(tx, &machine, receipts, wait, random::message_tag));
        Ok(Acknowledged { changed: job.await? })
    }

    /// Accepts a message from another machine. When this returns, it is on disk. The sender's own broker has applied the limits of its
    /// rate; mail that has waited for this machine comes all at once.
    pub async fn receive(self: &Arc<Self>, Receive { machine, message }: Receive) -> wire::Result<Received> {
        let now = clock::now();
        if message.expires_at <= now {
            return Ok(Received { id: None });
        }
        let RemoteMessage { id, from, bypasses, to, text, sent_at, expires_at, reply_to, follows } = message;
        let row = PeerRow { bypasses, ..self.row_of(&machine, &from, now)? };
        let caller = Caller::Peer(row.id.clone());
        let request = SendRequest { to: to.to_string(), text, reply_to: None, key: Some(id.to_string()), cwd: None, wake: false };
        let draft = self.draft(&caller, request)?;
        let to = self.recipient_here(to, reply_to.is_some())?;
        let reply_to = match follows.filter(|_| reply_to.is_none()) {
            Some(there) => self.store.glance(|view| gateway::id_here(view, &row.id, &there))?,
            None => reply_to,
        };
        self.meet(&machine, vec![row]).await?;
        let (sent_at, expires_at) = (sent_at.min(now), expires_at.min(draft.expires_at));
        let mut new = NewMessage { to, reply_to, sent_at, expires_at, ..draft };
        self.roster().address(&caller, &mut new);
        let terms = Terms { by_user: false, names_question: true, most_waiting: self.limits.waiting };
        let accepted = self.commit(Durability::Fsync, move |tx| accept(tx, vec![new], terms)).await?;
        let Some((_, copy)) = accepted.into_iter().next() else {
            return Err(Error::new(Code::Internal, "a message was neither accepted nor refused"));
        };
        Ok(Received { id: Some(copy.map_err(Error::from)?.receipt.message_id) })
    }

    /// The recipient of a message from another machine: a peer here, or the command line for an answer. Nothing passes through this
    /// machine to a third.
    fn recipient_here(&self, to: PeerId, is_answer: bool) -> wire::Result<PeerId> {
        let is_here = self.roster().peers.get(&to).is_some_and(|peer| peer.row.machine.is_none());
        if is_here || is_answer && to.as_str() == CLI_SENDER {
            return Ok(to);
        }
        Err(Error::new(Code::PeerNotFound, format!("Peer {to} not found")))
    }
}
