//! The gateway: a program of the user's that speaks for the peers of other machines, takes the mail for them, and hands in theirs.
//!
//! A machine's peers are there as long as it announces them. Their rows stay when they are gone, as those of all peers do, so mail can
//! wait for them. Every request can be repeated without harm.

use super::{
    core::{Broker, Caller},
    identity::check_path,
};
use crate::{
    db::{self, Durability, PeerRow, peers},
    mailbox::{
        Message,
        accept::{NewMessage, Terms, accept},
        gateway,
    },
    platform::{clock, random},
    wire::{
        self, Acknowledged, Announce, CLI_SENDER, Code, Confirm, Done, Error, Forwarded, Git, MachineName, Outgoing,
        OutgoingMessage, OutgoingReceipt, PeerId, Receive, Received, RemoteMessage, RemotePeer, RemoteReceipt, SendRequest,
        TakeOutgoing, Timestamp,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// The longest wait of one take, in seconds.
const LONGEST_WAIT: u32 = 3_600;
/// How many peers one machine may have.
const MOST_PEERS: usize = 1_024;
/// How many messages or receipts may be acknowledged or confirmed at once.
const MOST_AT_ONCE: usize = 10_000;

impl Broker {
    /// Learns which peers of a machine can be reached now. The others of that machine are gone.
    pub async fn announce(self: &Arc<Self>, Announce { machine, peers }: Announce) -> wire::Result<Done> {
        check_number("peers", peers.len(), MOST_PEERS)?;
        let now = clock::now();
        let rows = peers.iter().map(|peer| self.row_of(&machine, peer, now)).collect::<wire::Result<Vec<_>>>()?;
        let there: Vec<PeerId> = rows.iter().map(|row| row.id.clone()).collect();
        self.meet(rows).await?;
        let mut has_changed = false;
        for peer in self.roster().peers.values_mut().filter(|peer| peer.row.machine.as_ref() == Some(&machine)) {
            let (before, is_there) = (peer.status(now), there.contains(&peer.row.id));
            peer.heard = is_there.then_some(now);
            if is_there {
                peer.row.last_seen = now;
            }
            has_changed |= peer.status(now) != before;
        }
        if has_changed {
            self.changes.hint();
        }
        Ok(Done { ok: true })
    }

    /// What has to go to other machines. Waits for it if there is nothing.
    pub async fn take_outgoing(&self, request: TakeOutgoing) -> wire::Result<Outgoing> {
        let wait = Duration::from_secs(u64::from(request.wait_seconds.unwrap_or(0).min(LONGEST_WAIT)));
        let deadline = Instant::now() + wait;
        let mut changes = self.changes.hints();
        loop {
            let outgoing = self.outgoing()?;
            if !outgoing.messages.is_empty() || !outgoing.receipts.is_empty() || Instant::now() >= deadline {
                return Ok(outgoing);
            }
            tokio::select! {
                biased;
                () = self.stopped() => return Err(db::Error::Closed.into()),
                () = tokio::time::sleep_until(deadline) => {}
                changed = changes.changed() => drop(changed),
            }
        }
    }

    fn outgoing(&self) -> wire::Result<Outgoing> {
        let (messages, receipts) = self.store.glance(|view| {
            let mut messages = Vec::new();
            for message in gateway::outgoing(view)? {
                let Some(machine) = MachineName::of(&message.receipt.to) else { continue };
                // On its machine the question has the id that it came with.
                let question = message.receipt.reply_to.as_ref();
                let reply_to = question.map(|id| gateway::id_there(view, &machine, id)).transpose()?.flatten();
                messages.push((machine, message, reply_to));
            }
            Ok::<_, db::Error>((messages, gateway::untold(view)?))
        })?;
        let outgoing = |(machine, message, reply_to)| self.outgoing_message(machine, message, reply_to);
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
        reply_to: Option<wire::MessageId>,
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
        let message = RemoteMessage { id, from, bypasses, to, text: message.text, sent_at, expires_at, reply_to };
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
        let RemoteMessage { id, from, bypasses, to, text, sent_at, expires_at, reply_to } = message;
        let row = PeerRow { bypasses, ..self.row_of(&machine, &from, now)? };
        let caller = Caller::Peer(row.id.clone());
        let request = SendRequest { to: to.to_string(), text, reply_to: None, key: Some(id.to_string()), cwd: None };
        let draft = self.draft(&caller, request)?;
        let to = self.recipient_here(to, reply_to.is_some())?;
        self.meet(vec![row]).await?;
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

    /// Stores the rows of peers that are new or have changed.
    async fn meet(self: &Arc<Self>, rows: Vec<PeerRow>) -> wire::Result<()> {
        let is_same = |old: &PeerRow, row: &PeerRow| PeerRow { last_seen: row.last_seen, ..old.clone() } == *row;
        let changed: Vec<PeerRow> = {
            let roster = self.roster();
            let known = |row: &PeerRow| roster.peers.get(&row.id).is_some_and(|old| is_same(&old.row, row));
            rows.into_iter().filter(|row| !known(row)).collect()
        };
        if changed.is_empty() {
            return Ok(());
        }
        let stored = changed.clone();
        self.commit(Durability::Fsync, move |tx| Ok(stored.iter().try_for_each(|row| peers::put(tx, row))?)).await?;
        changed.into_iter().for_each(|row| self.roster().put(row));
        self.changes.hint();
        Ok(())
    }

    /// The row of a peer of another machine: what that machine says of it, and what is kept from before.
    fn row_of(&self, machine: &MachineName, peer: &RemotePeer, now: Timestamp) -> wire::Result<PeerRow> {
        let (id, name) = (machine.id_of(&peer.id)?, machine.name_of(&peer.name)?.as_str().to_owned());
        if !peer.cwd.is_empty() {
            check_path("cwd", &peer.cwd)?;
        }
        self.limits.check_summary(&peer.summary)?;
        let old = self.roster().peers.get(&id).map(|peer| peer.row.clone());
        let git = peer.git_repo.clone().map(|repo| {
            let (common_dir, head, branch) = (String::new(), String::new(), peer.git_branch.clone());
            Git { common_dir, head, repo, branch }
        });
        let kept = old.unwrap_or_else(|| PeerRow::new(id, name.clone(), peer.cwd.clone(), now));
        let (cwd, summary, machine) = (peer.cwd.clone(), peer.summary.clone(), Some(machine.clone()));
        Ok(PeerRow { name, cwd, git, summary, machine, last_seen: now, ..kept })
    }
}

fn check_number(what: &str, number: usize, most: usize) -> wire::Result<()> {
    if number <= most {
        return Ok(());
    }
    Err(Error::new(Code::InvalidRequest, format!("{number} {what} at once; at most {most} are taken")))
}
