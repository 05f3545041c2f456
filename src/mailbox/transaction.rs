use super::{
    Message, Result,
    message::{read_id, read_peer, read_route, read_state},
};
use crate::{
    db::{Tx, sqlite::Params},
    wire::{MessageId, MessageState, PeerId, Receipt, Route, Timestamp},
};
use std::{collections::BTreeMap, ops::Deref};

/// A transaction with a fixed time; it collects its [`Effects`].
#[derive(Debug)]
pub struct Transaction<'a> {
    tx: &'a Tx<'a>,
    pub now: Timestamp,
    pub effects: Effects,
}

/// The effects of a committed change on connected peers and watchers: only facts that the tables cannot tell later.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Peers whose streams and takes must look again, and whether to tell each that messages wait, if any still do.
    pub wake: BTreeMap<PeerId, bool>,
    /// Messages that changed, in order.
    pub changes: Vec<MessageChange>,
    /// Peers whose inbox or channel has proved itself, with the key of the agent process and the time.
    pub proofs: Vec<(PeerId, String, Timestamp)>,
    /// News of the peers' inboxes.
    pub inbox: Vec<(PeerId, InboxNews)>,
}

/// An event at the inbox of a session's client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboxNews {
    /// These messages were written into it in one frame.
    Written(Vec<MessageId>),
    /// This message was let in.
    LetIn(MessageId),
    /// The last frame was not let in; this many messages wait again.
    Missed(usize),
    /// The session's user has said something.
    Prompted,
}

/// A change of a message's state or route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageChange {
    pub id: MessageId,
    pub from: PeerId,
    pub to: PeerId,
    pub state: MessageState,
    /// The last route that handed it over, or tried to.
    pub route: Option<Route>,
    pub sent_at: Timestamp,
}

impl<'a> Transaction<'a> {
    pub fn new(tx: &'a Tx<'a>, now: Timestamp) -> Self {
        Self { tx, now, effects: Effects::default() }
    }

    /// Makes `peer` look again.
    pub(super) fn wake(&mut self, peer: &PeerId) {
        self.look(peer, false);
    }

    /// Makes `peer` look again, and tells it that messages wait.
    pub(super) fn hint(&mut self, peer: &PeerId) {
        self.look(peer, true);
    }

    fn look(&mut self, peer: &PeerId, hints: bool) {
        *self.effects.wake.entry(peer.clone()).or_default() |= hints;
    }

    /// Records an event at the inbox of `peer`.
    pub(super) fn inbox(&mut self, peer: &PeerId, news: InboxNews) {
        self.wake(peer);
        self.effects.inbox.push((peer.clone(), news));
    }

    /// Runs an `UPDATE` that changes the states of messages, and records each change: the recipients look again, as later messages may go
    /// now. Returns the messages in order.
    pub(super) fn update(&mut self, sql: &str, values: impl Params) -> Result<Vec<MessageId>> {
        let sql = format!("{sql} RETURNING seq, tag, from_peer, to_peer, state, held_at, route, sent_at, link");
        let mut changes = self.tx.all(&sql, values, |row| {
            let (id, from, to) = (read_id(row)?, read_peer(row, 2)?, read_peer(row, 3)?);
            let (state, route, sent_at) = (read_state(row, 4, 5, 8)?, read_route(row, 6)?, Timestamp::from_millis(row.get(7)?));
            Ok(MessageChange { id, from, to, state, route, sent_at })
        })?;
        changes.sort_by(|a, b| a.id.cmp(&b.id)); // RETURNING promises no order
        changes.iter().for_each(|change| self.wake(&change.to));
        let ids = changes.iter().map(|change| change.id.clone()).collect();
        self.effects.changes.extend(changes);
        Ok(ids)
    }

    /// Records that a message was accepted. Its recipient looks again. Unless its stream pushes the message, it is told that
    /// messages wait.
    pub(super) fn accepted(&mut self, message: &Message, is_pushed: bool) {
        let Receipt { message_id: id, from, to, state, sent_at, .. } = &message.receipt;
        self.look(to, !is_pushed);
        let (id, from, to, state) = (id.clone(), from.clone(), to.clone(), *state);
        self.effects.changes.push(MessageChange { id, from, to, state, route: None, sent_at: *sent_at });
    }
}

impl<'a> Deref for Transaction<'a> {
    type Target = Tx<'a>;

    fn deref(&self) -> &Tx<'a> {
        self.tx
    }
}
