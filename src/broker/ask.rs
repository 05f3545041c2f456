//! Asking: the wait for the answer to a message, and the mailbox of the command line, which holds nothing but answers.
//!
//! An answer is a message of the recipient that names the question; nothing else ends a wait as one. Nobody waits for a
//! recipient that is gone. What the command line has read is delivered once it says so.
//!
//! What a command line inside a session asks is that session's question. While it waits, the answer goes to it and not to the
//! session, which reads it in the command's output; an answer that comes later is a message to the session like any other.

use super::{Broker, Caller, MessageChange, roster, roster::Awaited, send::warning, stopping};
use crate::{
    mailbox::{
        messages::{self, Message},
        outcomes,
    },
    platform::clock,
    wire::{self, Acknowledged, Asked, AwaitReply, CLI_SENDER, Code, Error, MessageId, MessageState, PeerId, Route, Status},
};
use std::{sync::Mutex, time::Duration};
use tokio::time::Instant;

/// Longest wait of one request.
const LONGEST_WAIT: u32 = 3_600;
/// How soon a peer without a stream is looked at again: only its process tells when it is gone.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Broker {
    /// What is known of the question `id`; waits for its answer while there may be one. `inside` is the session in which the
    /// command line runs that waits.
    ///
    /// # Errors
    /// As [`Broker::message`]; [`Code::Stopping`].
    pub async fn reply_to(&self, caller: &Caller, inside: Option<&PeerId>, id: &str, request: AwaitReply) -> wire::Result<Asked> {
        let wait = Duration::from_secs(u64::from(request.wait_seconds.unwrap_or(0).min(LONGEST_WAIT)));
        let deadline = Instant::now() + wait;
        let mut changes = self.changes.subscribe();
        let mut asking = None;
        loop {
            changes.mark_unchanged();
            if asking.is_none() && !wait.is_zero() {
                let question = self.asked(caller, id).await?.question;
                let inside = inside.filter(|session| **session == question.from).cloned();
                asking = Some(Asking::new(self, Awaited { question: question.message_id, inside }));
            }
            let asked = self.asked(caller, id).await?;
            let over = asked.answer.is_some() || asked.recipient == Status::Gone || asked.question.state == MessageState::Expired;
            if over || Instant::now() >= deadline {
                return Ok(asked);
            }
            tokio::select! {
                biased;
                () = self.stopped() => return Err(stopping()),
                () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_AGAIN)) => {}
                changed = changes.changed() => drop(changed),
            }
        }
    }

    /// The question of the command line that a message of `peer` answers although it names none: the only one that has been
    /// handed to that peer and is waited for right now. A message said again under its key answers what it answered before.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] if it may be any of several; the store's.
    pub(super) fn meant_question(&self, peer: &PeerId, text: &str, key: Option<&str>) -> wire::Result<Option<MessageId>> {
        let cli = PeerId::lenient(CLI_SENDER);
        let mut asked: Vec<MessageId> = self.state().asked.iter().map(|asked| asked.question.clone()).collect();
        asked.sort();
        asked.dedup();
        let (before, open) = self.store.glance(|c| {
            let before = match key {
                Some(key) => messages::sent_before(c, peer, key, &cli, text)?,
                None => None,
            };
            let mut open = Vec::new();
            for id in asked {
                let is_from_cli_to_peer = |asked: &Message| asked.from == cli.as_str() && asked.to == peer.as_str();
                if messages::get(c, &id)?.is_some_and(|asked| is_from_cli_to_peer(&asked) && asked.handed > 0)
                    && messages::answer(c, &id, peer, &cli)?.is_none()
                {
                    open.push(id);
                }
            }
            Ok((before, open))
        })?;
        match (before, open.as_slice()) {
            (Some(before), _) => Ok(before.reply_to),
            (None, []) => Ok(None),
            (None, [one]) => Ok(Some(one.clone())),
            (None, several) => {
                let ids = several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let what = format!("{CLI_SENDER} waits for the answers to {ids}, and this message names none of them");
                Err(Error::new(Code::InvalidRequest, what)
                    .help("send it again with replyTo, the id of the question that it answers"))
            }
        }
    }

    async fn asked(&self, caller: &Caller, id: &str) -> wire::Result<Asked> {
        let mut question = self.message(caller, id).await?.receipt;
        let (id, from, to) = (question.message_id.clone(), question.from.clone(), question.to.clone());
        let cli = PeerId::lenient(CLI_SENDER);
        let find = move |c: &rusqlite::Connection| match messages::answer(c, &id, &to, &from)? {
            None if from != cli => Ok(messages::answer(c, &id, &to, &cli)?), // to the command line inside the session that asked
            found => Ok(found),
        };
        let answer = self.store.read(find).await?;
        let answer = answer.map(|answer| self.entry(answer));
        let now = clock::now();
        let recipient = match self.state().peers.get(&question.to) {
            Some(peer) => {
                question.warning = warning(peer, &question, now);
                peer.status(now)
            }
            None => Status::Gone,
        };
        Ok(Asked { question, recipient, answer })
    }

    /// The user has read an answer to the command line, or to the session inside of which the command line runs.
    ///
    /// # Errors
    /// [`Code::Forbidden`] for a peer, [`Code::InvalidId`]; the store's. A message to somebody else does not change.
    pub async fn read_by_user(&self, caller: &Caller, inside: Option<PeerId>, id: &str) -> wire::Result<Acknowledged> {
        if let Caller::Peer(peer) = caller {
            return Err(
                Error::new(Code::Forbidden, format!("{peer} is not the command line")).help("acknowledge your own messages")
            );
        }
        let id: MessageId = id.parse()?;
        let mut changed = 0;
        for reader in std::iter::once(CLI_SENDER.parse()?).chain(inside) {
            changed += u32::from(self.read_by(&id, reader).await?);
        }
        Ok(Acknowledged { changed })
    }

    async fn read_by(&self, id: &MessageId, reader: PeerId) -> wire::Result<bool> {
        let (read, to, now) = (id.clone(), reader.clone(), clock::now());
        let job = move |c: &rusqlite::Connection| Ok(outcomes::delivered(c, &to, &read, Route::CheckMessages, now)?);
        let change = self.store.write(job).await?;
        if let Some(peer) = self.state().peers.get_mut(&reader) {
            peer.waiting = peer.waiting.saturating_add_signed(i32::try_from(change.waiting).unwrap_or_default());
        }
        let changed = change.sender.map(|sender| MessageChange {
            id: id.clone(),
            from: PeerId::lenient(&sender),
            to: reader,
            state: MessageState::Delivered,
            route: Some(Route::CheckMessages),
        });
        let is_new = changed.is_some();
        self.changes.messages(changed);
        Ok(is_new)
    }
}

/// Somebody waits for the answer to this question.
struct Asking<'a> {
    state: &'a Mutex<roster::Roster>,
    awaited: Awaited,
}

impl<'a> Asking<'a> {
    fn new(broker: &'a Broker, awaited: Awaited) -> Self {
        broker.state().asked.push(awaited.clone());
        Self { state: &broker.state, awaited }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let asked = &mut roster::lock(self.state).asked;
        if let Some(at) = asked.iter().position(|asked| *asked == self.awaited) {
            asked.swap_remove(at);
        }
    }
}
