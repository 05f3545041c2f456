//! Sends a message: finds the recipient, checks the limits, puts the message into the mailbox, returns the receipt.

use super::{
    core::{Broker, Caller},
    identity::check_token,
    limits::Pace,
    names::unknown,
    peer::Peer,
    presence::LOOK,
    release,
    roster::{Awaited, Resolved, Roster},
};
use crate::{
    db::Durability,
    mailbox::{
        self, Message, Refusal,
        accept::{NewMessage, Terms, accept, preview},
    },
    platform::{clock, random},
    wire::{
        self, CLI_SENDER, Code, Error, MessageState, PeerId, PeerRef, Receipt, Route, SendRequest, Status, Timestamp,
        text::printable_line,
    },
};
use std::sync::Arc;

/// The longest name of a recipient in the log.
const LONGEST_NAME: usize = 64;

impl Broker {
    /// Accepts a message. When this returns, the message is on disk.
    pub async fn send(self: &Arc<Self>, caller: &Caller, request: SendRequest) -> wire::Result<Receipt> {
        let to = request.to.clone();
        self.accept_one(caller, request).await.inspect_err(|error| self.note_refusal(caller, &to, error))
    }

    /// Counts and logs that a message to `to` was refused. Errors of the broker itself are logged elsewhere.
    pub(super) fn note_refusal(&self, caller: &Caller, to: &str, Error { code, .. }: &Error) {
        self.metrics.refused_message(*code);
        let sender = caller.peer().map_or(CLI_SENDER.to_owned(), |id| self.roster().name(id));
        let to: String = printable_line(to).chars().take(LONGEST_NAME).collect();
        if ![Code::Internal, Code::Stopping, Code::DatabaseLocked, Code::DatabaseMoved].contains(code) {
            tracing::info!(sender, to, %code, "{sender} → {to} refused: {code}");
        }
    }

    async fn accept_one(self: &Arc<Self>, caller: &Caller, request: SendRequest) -> wire::Result<Receipt> {
        let reference: PeerRef = request.to.parse()?;
        let reply_to = match request.reply_to.as_deref().filter(|id| !id.is_empty()) {
            Some(id) => Some(self.message_id(caller, id).await?),
            None => None,
        };
        let wakes = request.wake;
        let mut new = NewMessage { reply_to, ..self.draft(caller, request)? };
        let (mut notes, mut names_question) = (Vec::new(), true);
        let is_to_cli = reference.as_str() == CLI_SENDER && *caller != Caller::User;
        if is_to_cli {
            new.to = PeerId::lenient(CLI_SENDER);
            if new.reply_to.is_none()
                && let Some(question) = self.meant_question(&new)?
            {
                notes.push(format!("without replyTo, it counts as the answer to {question}, the only one that is waited for"));
                (new.reply_to, names_question) = (Some(question), false);
            }
        }
        match &new.reply_to {
            // The mailbox of the command line takes only answers to its questions.
            Some(question) if is_to_cli => {
                let is_awaited = self.roster().asked.iter().any(|asked| asked.question == *question);
                let note = "nobody waits for it at the command line right now; the user finds it in `claude-peers history`";
                notes.extend((!is_awaited).then(|| note.to_owned()));
            }
            _ => {
                let (to, note) = self.recipient(&reference, &new.from).await?;
                new.to = to;
                notes.extend(note);
            }
        }
        let now = new.sent_at;
        let Some((_, accepted)) = self.accept(caller, vec![new], names_question).await?.pop() else {
            return Err(Error::new(Code::Internal, "a message was neither accepted nor refused"));
        };
        let accepted = accepted?;
        if wakes {
            self.ask_to_wake(&accepted.receipt.to, accepted.receipt.message_id.clone());
        }
        let receipt = self.receipt(accepted, now);
        notes.extend(receipt.warning);
        Ok(Receipt { warning: (!notes.is_empty()).then(|| notes.join("; ")), ..receipt })
    }

    /// A message from `caller` without its recipient and question, which are set later.
    pub(super) fn draft(&self, caller: &Caller, request: SendRequest) -> wire::Result<NewMessage> {
        self.limits.check_text(&request.text)?;
        if let Some(key) = &request.key {
            check_token("key", key)?;
        }
        let from = caller.peer().cloned().unwrap_or_else(|| PeerId::lenient(CLI_SENDER));
        let (tag, to) = (random::message_tag(), from.clone());
        let new = NewMessage::new(tag, from, to, request.text, clock::now(), self.limits.expiry);
        Ok(NewMessage { key: request.key, ..new })
    }

    /// Puts copies of one message into the mailbox, in one transaction; returns the outcome of each. If the rate does not allow
    /// all of them, all are refused. Copies accepted before, and copies to full mailboxes, do not count towards the rate.
    pub(super) async fn accept(
        self: &Arc<Self>,
        caller: &Caller,
        copies: Vec<NewMessage>,
        names_question: bool,
    ) -> wire::Result<Vec<(PeerId, wire::Result<Message>)>> {
        let to: Vec<&PeerId> = copies.iter().map(|copy| &copy.to).collect();
        self.look_for_users(|peer| to.contains(&&peer.row.id)).await;
        let terms = Terms { by_user: *caller == Caller::User, names_question, most_waiting: self.limits.waiting };
        let mut refused = Vec::new();
        let copies = self.pace(caller, copies, &mut refused)?;
        let accepted = self.commit(Durability::Fsync, move |tx| accept(tx, copies, terms)).await?;
        refused.extend(accepted.into_iter().map(|(to, copy)| (to, copy.map_err(Error::from))));
        Ok(refused)
    }

    /// The copies that the sender's limits allow, with facts about their recipients from the roster. The others go to `refused`. What
    /// the mailbox refuses or knows already does not count towards the limits, so a limited sender's copies are looked up first.
    fn pace(
        &self,
        caller: &Caller,
        copies: Vec<NewMessage>,
        refused: &mut Vec<(PeerId, wire::Result<Message>)>,
    ) -> wire::Result<Vec<NewMessage>> {
        let most = self.limits.waiting;
        let known: Vec<_> = match self.limits.per_minute {
            None => copies.iter().map(|_| Ok(None)).collect(),
            Some(_) => {
                self.store.glance(|view| copies.iter().map(|new| preview(view, new, most)).collect::<mailbox::Result<_>>())?
            }
        };
        let mut roster = self.roster();
        let (mut passing, mut fresh) = (Vec::with_capacity(copies.len()), Vec::new());
        for (mut new, known) in copies.into_iter().zip(known) {
            let is_fresh = match known {
                Err(refusal) => Err(refusal.into()),
                Ok(Some(_)) => Ok(false),
                Ok(None) => roster.pace(caller)?.check_repeat(&self.limits, &new.to, &new.text, new.sent_at).map(|()| true),
            };
            match is_fresh {
                Err(error) => refused.push((new.to, Err(error))),
                Ok(is_fresh) => {
                    fresh.extend(is_fresh.then(|| new.to.clone()));
                    roster.address(caller, &mut new);
                    passing.push(new);
                }
            }
        }
        if let Some(first) = passing.first() {
            roster.pace(caller)?.count(&self.limits, &fresh, &first.text, first.sent_at)?;
            if let Some(pace) = roster.container_pace(caller) {
                pace.count_in_container(&self.limits, fresh.len())?;
            }
        }
        Ok(passing)
    }

    /// The receipt of a stored message, with a warning for its sender if needed.
    pub(super) fn receipt(&self, message: Message, now: Timestamp) -> Receipt {
        let roster = self.roster();
        let receipt = Receipt { to_name: roster.name(&message.receipt.to), ..message.receipt };
        let warning = warning(&roster, &receipt, now);
        Receipt { warning, ..receipt }
    }

    /// The peer that `reference` names, with a note for the sender if the choice needs one.
    async fn recipient(&self, reference: &PeerRef, from: &PeerId) -> wire::Result<(PeerId, Option<String>)> {
        let no_mailbox = |what: &str| Err(Error::new(Code::NoMailbox, what).help("list the peers to see who can be written to"));
        if reference.as_str() == CLI_SENDER || reference.as_str() == wire::BROKER_SENDER {
            return no_mailbox(&format!("{reference} has no mailbox: nobody reads there"));
        }
        let name = reference.as_str();
        self.look(LOOK, |peer| peer.row.id.as_str() == name || peer.row.name.eq_ignore_ascii_case(name)).await;
        let roster = self.roster();
        match roster.resolve(reference, clock::now()) {
            Resolved::One(id) | Resolved::Newest(id, _) if id == *from => no_mailbox("a peer cannot write to itself"),
            Resolved::One(id) => Ok((id, None)),
            Resolved::Newest(id, gone) => {
                let note = format!("{gone} sessions named {reference} are gone; this goes to the newest, {id}");
                Ok((id, Some(note)))
            }
            Resolved::None => Err(unknown(&roster, reference)),
            Resolved::Many(ids) => {
                Err(Error::new(Code::AmbiguousPeer, format!("{reference} fits {}", ids.join(", "))).help("use one of these ids"))
            }
        }
    }
}

impl Roster {
    /// Adds to a new message what the roster knows of its recipient.
    pub(super) fn address(&self, caller: &Caller, new: &mut NewMessage) {
        new.stream = self.peers.get(&new.to).and_then(Peer::pushing);
        let is_awaited_inside =
            |asked: &Awaited| Some(&asked.question) == new.reply_to.as_ref() && asked.inside.as_ref() == Some(&new.to);
        new.for_cli_inside = *caller != Caller::User && self.asked.iter().any(is_awaited_inside);
    }

    /// The recent messages of all sessions in the container of `caller`.
    fn container_pace(&mut self, caller: &Caller) -> Option<&mut Pace> {
        let container = self.peers.get(caller.peer()?)?.row.container.clone()?;
        Some(self.container_paces.entry(container).or_default())
    }

    fn pace(&mut self, caller: &Caller) -> wire::Result<&mut Pace> {
        match caller {
            Caller::User => Ok(&mut self.cli_pace),
            Caller::Peer(id) => self.peers.get_mut(id).map(|peer| &mut peer.pace).ok_or_else(|| Refusal::UnknownSender.into()),
        }
    }
}

/// The reason why the recipient has not seen a message yet, or will not see it at once.
pub(super) fn warning(roster: &Roster, receipt: &Receipt, now: Timestamp) -> Option<String> {
    if let Some(stuck) = roster.stuck(receipt, now) {
        return Some(stuck);
    }
    let peer = roster.peers.get(&receipt.to)?;
    let (name, status) = (&peer.row.name, peer.status(now));
    match (receipt.state, status, peer.delivery().0) {
        (MessageState::Held, ..) => release::explain(name, status, receipt),
        (MessageState::Offered, Status::Connected, _) if receipt.route == Some(Route::Inbox) => {
            let at = receipt.offered_at.map(|at| format!(" at {at}")).unwrap_or_default();
            Some(format!("written into the inbox of {name}{at}; nothing has shown yet that it was let in"))
        }
        (MessageState::Queued, Status::Gone, Route::Link) => {
            let until = receipt.expires_at;
            Some(format!("{name} is not running; the message waits here until it is forwarded, at most until {until}"))
        }
        (MessageState::Queued, _, Route::Link) => Some(format!("it waits here until it is forwarded to the machine of {name}")),
        (MessageState::Forwarded, _, _) => {
            Some(format!("it is stored on its way to the machine of {name}, which has reported nothing yet"))
        }
        (MessageState::Queued, Status::Gone, _) => {
            let until = receipt.expires_at;
            Some(format!("{name} is not running; the message waits for its session to be resumed, until {until}"))
        }
        (MessageState::Queued, Status::Reconnecting, _) => {
            Some(format!("{name} is reconnecting; it gets the message when it is back"))
        }
        (MessageState::Queued, Status::Connected, _) if peer.attended.is_left_alone() => Some(format!(
            "{name} is unattended: its user has left, so nothing wakes it. The message waits. To wake the session all the same, send \
             with `wake` (`claude-peers send --wake`)"
        )),
        (MessageState::Queued, Status::Connected, Route::Pull) if peer.takers == 0 && peer.doorbell.rings() => {
            Some(format!("{name} has no inbox; a doorbell tells it that mail waits"))
        }
        (MessageState::Queued, Status::Connected, Route::Pull) if peer.takers == 0 => {
            Some(format!("{name} cannot be interrupted; it sees the message when it next uses one of its claude-peers tools"))
        }
        _ => None,
    }
}
