//! A message comes in: limits, rules, commit, wake.

use super::{
    Broker, Caller, Limits, MessageChange,
    deliver::receipt,
    hold,
    limits::Pace,
    roster::{self, Awaited, Resolved, Roster},
};
use crate::{
    db,
    mailbox::{
        holds::Rule,
        leases,
        messages::{self, Message, NewMessage},
        outcomes,
    },
    platform::{clock, random},
    wire::{self, CLI_SENDER, Code, Error, Held, MessageId, PeerId, PeerRef, Receipt, Route, SendRequest, Status, Timestamp},
};
use rusqlite::Connection;
use std::{collections::HashMap, sync::Mutex};

impl Broker {
    /// Accepts a message. Once this answers, the message is on disk.
    ///
    /// # Errors
    /// A limit or rule refused it ([`Code::TooLarge`], [`Code::RateLimited`], [`Code::PeerNotFound`] …); the store's.
    pub async fn send(&self, caller: &Caller, request: SendRequest) -> wire::Result<Receipt> {
        self.limits.check_text(&request.text)?;
        let reference: PeerRef = request.to.parse()?;
        let mut reply_to: Option<MessageId> =
            request.reply_to.as_deref().filter(|id| !id.is_empty()).map(str::parse).transpose()?;
        if let Some(key) = &request.key {
            super::register::check_token("key", key)?;
        }
        let now = clock::now();
        let from = sender_id(caller)?;
        let is_to_cli = reference.as_str() == CLI_SENDER && *caller != Caller::User;
        let guessed = match is_to_cli && reply_to.is_none() {
            true => self.meant_question(&from, &request.text, request.key.as_deref())?,
            false => None,
        };
        let says_what_it_answers = guessed.is_none();
        reply_to = reply_to.or(guessed);
        let (to, note) = if is_to_cli && let Some(question) = &reply_to {
            // Only an answer to what it asked: see `confirm`.
            let guess = || format!("without replyTo, it counts as the answer to {question}, the only one that is waited for");
            (PeerId::lenient(CLI_SENDER), (!says_what_it_answers).then(guess))
        } else {
            self.recipient(&reference, &from, now)?
        };
        let message = NewMessage {
            tag: random::message_tag(),
            from: from.clone(),
            to: to.clone(),
            text: request.text,
            reply_to,
            key: request.key,
            sent_at: now,
            expires_at: now.plus(self.limits.expiry),
            passes: false,
            bypassed: false,
            held: None,
        };
        match self.accept(caller, vec![message], says_what_it_answers).await?.pop() {
            Some((_, accepted)) => {
                let mut receipt = self.tell(accepted?, now).await?;
                let notes: Vec<String> = note.into_iter().chain(receipt.warning).collect();
                receipt.warning = (!notes.is_empty()).then(|| notes.join("; "));
                Ok(receipt)
            }
            None => Err(Error::new(Code::Internal, "a message was neither accepted nor refused")),
        }
    }

    /// Stores these messages of one text in one transaction: for each recipient what became of its copy. A rate that does not
    /// hold all of them refuses all. Whether they say themselves what they answer: only then that was read for certain.
    pub(super) async fn accept(&self, caller: &Caller, messages: Vec<NewMessage>, says: bool) -> wire::Result<Copies> {
        let (state, limits, caller) = (self.state.clone(), self.limits.clone(), caller.clone());
        let accepted = self.store.write(move |c| accept(c, &state, &limits, &caller, messages, says)).await;
        if let Err(db::Error::Commit(_) | db::Error::Sqlite(_)) = accepted {
            // It was counted inside the transaction that did not come to be.
            self.recount().await?;
        }
        Ok(accepted?)
    }

    /// Wakes the recipient of a message that is on disk, and tells whoever watches; its receipt.
    pub(super) async fn tell(&self, accepted: Accepted, now: Timestamp) -> wire::Result<Receipt> {
        let (from, to) = (PeerId::lenient(&accepted.message.from), PeerId::lenient(&accepted.message.to));
        if let Some((by, at)) = accepted.proved {
            self.remember_proof(&from, by, at, accepted.trusted).await?;
        }
        let mut state = self.state();
        if let Some(peer) = state.peers.get_mut(&from).filter(|_| !accepted.confirmed.is_empty()) {
            accepted.confirmed.iter().for_each(|change| peer.door.has_let_in(&change.id));
            peer.wake();
        }
        let (name, warning) = match state.peers.get_mut(&to) {
            Some(peer) => {
                if accepted.is_new {
                    peer.hint |= !accepted.pushed;
                    peer.wake();
                }
                (peer.row.name.clone(), warning(peer, &receipt(&accepted.message, &peer.row.name), now))
            }
            None => (to.to_string(), unasked(&state.asked, &accepted.message)),
        };
        drop(state);
        if accepted.is_new {
            let message = &accepted.message;
            let queued = std::iter::once_with(|| MessageChange {
                id: message.id.clone(),
                from: from.clone(),
                to: to.clone(),
                state: message.state,
                route: None,
            });
            self.changes.messages(accepted.confirmed.into_iter().chain(queued));
            tracing::info!(message = %accepted.message.id, peer = %to, sender = %from, "accepted");
        }
        Ok(Receipt { warning, ..receipt(&accepted.message, &name) })
    }

    /// Counts anew what waits for whom, by what is really stored.
    async fn recount(&self) -> wire::Result<()> {
        let counts: HashMap<String, u32> = self.store.read(|c| Ok(messages::waiting(c)?)).await?.into_iter().collect();
        for peer in self.state().peers.values_mut() {
            peer.waiting = counts.get(peer.row.id.as_str()).copied().unwrap_or_default();
        }
        Ok(())
    }

    /// Who is meant, and what the sender should know of that choice.
    fn recipient(&self, reference: &PeerRef, from: &PeerId, now: Timestamp) -> wire::Result<(PeerId, Option<String>)> {
        let no_mailbox = |what: &str| Err(Error::new(Code::NoMailbox, what).help("list the peers to see who can be written to"));
        if reference.as_str() == CLI_SENDER || reference.as_str() == wire::BROKER_SENDER {
            return no_mailbox(&format!("{reference} has no mailbox: nobody reads there"));
        }
        match self.state().resolve(reference, now) {
            Resolved::One(id) | Resolved::Newest(id, _) if id == *from => no_mailbox("a peer cannot write to itself"),
            Resolved::One(id) => Ok((id, None)),
            Resolved::Newest(id, gone) => {
                let note = format!("{gone} sessions named {reference} are gone; this goes to the newest, {id}");
                Ok((id, Some(note)))
            }
            Resolved::None => Err(Error::new(Code::PeerNotFound, format!("Peer {reference} not found"))
                .help("list the peers to see who is there, and use an id or name from that list")),
            Resolved::Many(ids) => {
                Err(Error::new(Code::AmbiguousPeer, format!("{reference} fits {}", ids.join(", "))).help("use one of these ids"))
            }
        }
    }

    /// The inbox or channel of `peer` has proved itself: remembered, and what it was given does not wait any more.
    async fn remember_proof(&self, peer: &PeerId, by: String, at: Timestamp, trusted: usize) -> wire::Result<()> {
        let row = {
            let mut state = self.state();
            let Some(peer) = state.peers.get_mut(peer) else { return Ok(()) };
            peer.row.proved = Some((by, at));
            peer.waiting = peer.waiting.saturating_sub(u32::try_from(trusted).unwrap_or(u32::MAX));
            peer.row.clone()
        };
        tracing::info!(peer = %row.id, "its inbox or channel has proved itself");
        Ok(self.store.write(move |c| Ok(db::peers::put(c, &row)?)).await?)
    }
}

pub(super) fn sender_id(caller: &Caller) -> wire::Result<PeerId> {
    match caller {
        Caller::User => Ok(CLI_SENDER.parse()?),
        Caller::Peer(id) => Ok(id.clone()),
    }
}

/// What became of each recipient's copy of a message, in the order asked for.
pub(super) type Copies = Vec<(PeerId, wire::Result<Accepted>)>;

/// A message that is on disk.
pub(super) struct Accepted {
    message: Message,
    is_new: bool,
    pushed: bool,
    /// The reply proved the sender's own inbox or channel, by this key.
    proved: Option<(String, Timestamp)>,
    trusted: usize,
    /// What the message showed to have been read.
    confirmed: Vec<MessageChange>,
}

/// Inside the transaction: a known key is the same message; then the limits; then what a message says about earlier ones; then
/// the row. All on the writing thread, so two messages never race for the last free place.
fn accept(
    c: &Connection,
    state: &Mutex<Roster>,
    limits: &Limits,
    caller: &Caller,
    messages: Vec<NewMessage>,
    says_what_it_answers: bool,
) -> db::Result<Copies> {
    let (mut copies, mut fresh) = (Vec::with_capacity(messages.len()), Vec::new());
    for new in messages {
        if let Some(key) = &new.key
            && let Some(message) = sent_before(c, &new, key)?
        {
            let known = Accepted { message, is_new: false, pushed: false, proved: None, trusted: 0, confirmed: Vec::new() };
            copies.push((new.to, Ok(known)));
        } else if let Err(refused) = check(&mut roster::lock(state), limits, caller, &new) {
            copies.push((new.to, Err(refused)));
        } else {
            fresh.push(new);
        }
    }
    if let Some(first) = fresh.first() {
        let to: Vec<&PeerId> = fresh.iter().map(|new| &new.to).collect();
        pace(&mut roster::lock(state), caller)?.count(limits, &to, &first.text, first.sent_at)?;
    }
    for new in fresh {
        copies.push((new.to.clone(), Ok(put(c, state, caller, new, says_what_it_answers)?)));
    }
    Ok(copies)
}

/// The message that was sent under this key; also if it was an answer that the command line got in its session's place.
fn sent_before(c: &Connection, new: &NewMessage, key: &str) -> db::Result<Option<Message>> {
    let known = messages::sent_before(c, &new.from, key, &new.to, &new.text);
    match &new.reply_to {
        Some(_) if known.is_err() => messages::sent_before(c, &new.from, key, &PeerId::lenient(CLI_SENDER), &new.text).or(known),
        _ => known,
    }
}

/// The limits of one recipient.
fn check(state: &mut Roster, limits: &Limits, caller: &Caller, new: &NewMessage) -> wire::Result<()> {
    match state.peers.get(&new.to) {
        None if new.to.as_str() == CLI_SENDER => {}
        Some(peer) => limits.check_waiting(peer.waiting, &peer.row.name)?,
        None => return Err(Error::new(Code::PeerNotFound, format!("Peer {} not found", new.to))),
    }
    pace(state, caller)?.check_repeat(limits, &new.to, &new.text, new.sent_at)
}

fn pace<'a>(state: &'a mut Roster, caller: &Caller) -> wire::Result<&'a mut Pace> {
    match caller {
        Caller::User => Ok(&mut state.cli_pace),
        Caller::Peer(id) => match state.peers.get_mut(id) {
            Some(peer) => Ok(&mut peer.pace),
            None => Err(Error::new(Code::Unauthorized, "the sender is not registered").help("register again")),
        },
    }
}

/// Stores a message that no limit refuses.
fn put(
    c: &Connection,
    state: &Mutex<Roster>,
    caller: &Caller,
    mut new: NewMessage,
    says_what_it_answers: bool,
) -> db::Result<Accepted> {
    let inside = *caller != Caller::User && is_awaited_inside(&roster::lock(state).asked, &new);
    let (stream, agent, rule, bypasses) = {
        let state = roster::lock(state);
        let stream = state.peers.get(&new.to).filter(|_| !inside).and_then(roster::Peer::pushing);
        let sender = match caller {
            Caller::User => None,
            Caller::Peer(id) => state.peers.get(id),
        };
        let rule = state.peers.get(&new.to).map_or(Rule::Nothing, roster::Peer::rule);
        let agent = sender.map(|peer| (peer.agent_key(), peer.has_proved(), peer.has_hook()));
        (stream, agent, rule, sender.is_some_and(|peer| peer.row.bypasses))
    };
    // What the user sends by hand is the user's; an answer was asked for.
    new.passes = *caller == Caller::User || is_answer(c, &new)?;
    new.bypassed = bypasses;
    new.held = rule.holds(new.passes, bypasses);
    let lease = match stream {
        Some(stream) if new.held.is_none() && !leases::has_others(c, &new.to, &stream)? => Some(stream),
        _ => None,
    };
    let (mut proved, mut trusted, mut confirmed) = (None, 0, Vec::new());
    let mut acknowledged_by_reply = 0;
    let delivered = |id, sender: PeerId| MessageChange {
        id,
        from: sender,
        to: new.from.clone(),
        state: wire::MessageState::Delivered,
        route: Some(Route::Reply),
    };
    if let Some((key, already_proved, has_hook)) = agent {
        if let Some(answered) = new.reply_to.as_ref().filter(|_| says_what_it_answers) {
            let (change, proof) = confirm(c, &new, answered, &key)?;
            acknowledged_by_reply = change.waiting;
            confirmed.extend(change.sender.map(|sender| delivered(answered.clone(), PeerId::lenient(&sender))));
            if proof && !already_proved {
                trusted = if has_hook { 0 } else { outcomes::trust(c, &new.from, &key)? };
                proved = Some((key, new.sent_at));
            }
        }
        // Only where the inbox or channel has proved itself does writing to somebody show that what it pushed was read.
        if already_proved || proved.is_some() {
            let pushed = outcomes::confirm_pushed(c, &new.from, &new.to, new.sent_at)?;
            confirmed.extend(pushed.into_iter().map(|id| delivered(id, new.to.clone())));
        }
    } else if let Some(answered) = &new.reply_to {
        must_exist(c, answered, "")?;
    }
    if inside {
        new.to = PeerId::lenient(CLI_SENDER);
    }
    let seq = messages::insert(c, &new, lease.as_deref())?;
    let mut state = roster::lock(state);
    if let Some(peer) = state.peers.get_mut(&new.to) {
        peer.waiting += 1;
    }
    if let Some(peer) = state.peers.get_mut(&new.from) {
        peer.waiting = peer.waiting.saturating_add_signed(i32::try_from(acknowledged_by_reply).unwrap_or_default());
    }
    let message = Message {
        id: MessageId::new(seq, new.tag).map_err(wire::Error::from)?,
        from: new.from.to_string(),
        to: new.to.to_string(),
        text: new.text,
        reply_to: new.reply_to,
        sent_at: new.sent_at,
        expires_at: new.expires_at,
        state: if new.held.is_some() { wire::MessageState::Held } else { wire::MessageState::Queued },
        route: None,
        held: new.held.map(|by| Held { at: new.sent_at, by }),
        handed: u32::from(lease.is_some()),
        offered_at: None,
        delivered_at: None,
        expired_at: None,
    };
    Ok(Accepted { message, is_new: true, pushed: lease.is_some(), proved, trusted, confirmed })
}

/// Whether a message answers one of its recipient's own.
fn is_answer(c: &Connection, new: &NewMessage) -> db::Result<bool> {
    let Some(answered) = &new.reply_to else { return Ok(false) };
    Ok(outcomes::named(c, answered, "")?.is_some_and(|named| named.from == new.to.as_str() && named.to == new.from.as_str()))
}

/// Whether a command line inside the session that `new` answers waits for it: that one gets it in the session's place.
fn is_awaited_inside(asked: &[Awaited], new: &NewMessage) -> bool {
    asked.iter().any(|asked| Some(&asked.question) == new.reply_to.as_ref() && asked.inside.as_ref() == Some(&new.to))
}

/// A reply that names a message addressed to its sender shows that it was read; if it was pushed to the process `agent`, that way
/// works.
fn confirm(c: &Connection, new: &NewMessage, answered: &MessageId, agent: &str) -> db::Result<(outcomes::Change, bool)> {
    let named = must_exist(c, answered, agent)?;
    if new.to.as_str() == CLI_SENDER && named.from != CLI_SENDER {
        let what = format!("{CLI_SENDER} has no mailbox but for answers to what it sent, and {answered} is none of that");
        return Err(Error::new(Code::NoMailbox, what).help("list the peers to see who can be written to").into());
    }
    if named.to == new.from.as_str() {
        Ok((outcomes::delivered(c, &new.from, answered, Route::Reply, new.sent_at)?, named.pushed))
    } else if named.from == new.from.as_str() {
        Ok((outcomes::Change::default(), false)) // a follow-up on one's own message
    } else {
        Err(no_such_message(answered).into())
    }
}

fn must_exist(c: &Connection, answered: &MessageId, agent: &str) -> db::Result<outcomes::Named> {
    outcomes::named(c, answered, agent)?.ok_or_else(|| no_such_message(answered).into())
}

fn no_such_message(id: &MessageId) -> Error {
    Error::new(Code::MessageNotFound, format!("replyTo names {id}, which is no message to or from this sender"))
        .help("use the message_id of the message you answer, or leave replyTo out")
}

/// Why the recipient has not seen a message yet, or will not see it at once.
pub(super) fn warning(peer: &roster::Peer, receipt: &Receipt, now: Timestamp) -> Option<String> {
    let (name, status) = (&peer.row.name, peer.status(now));
    match (receipt.state, status, peer.delivery().0) {
        (wire::MessageState::Held, ..) => hold::explain(name, status, receipt),
        (wire::MessageState::Offered, Status::Connected, _) if receipt.route == Some(Route::Inbox) => {
            let at = receipt.offered_at.map(|at| format!(" at {at}")).unwrap_or_default();
            Some(format!("written into the inbox of {name}{at}; nothing has shown yet that it was let in"))
        }
        (wire::MessageState::Queued, Status::Gone, _) => {
            let until = receipt.expires_at;
            Some(format!("{name} is not running; the message waits for its session to be resumed, until {until}"))
        }
        (wire::MessageState::Queued, Status::Reconnecting, _) => {
            Some(format!("{name} is reconnecting; it gets the message when it is back"))
        }
        (wire::MessageState::Queued, Status::Connected, Route::Pull) if peer.takers == 0 => {
            Some(format!("{name} cannot be interrupted; it sees the message when it next uses one of its claude-peers tools"))
        }
        _ => None,
    }
}

/// Why nobody at the command line will see an answer at once.
fn unasked(asked: &[Awaited], message: &Message) -> Option<String> {
    let waits = asked.iter().any(|asked| Some(&asked.question) == message.reply_to.as_ref());
    (!waits).then(|| "nobody waits for it at the command line right now; the user finds it in `claude-peers history`".to_owned())
}
