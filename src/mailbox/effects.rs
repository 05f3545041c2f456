use super::{
    Message,
    message::{read_id, read_peer, read_route, read_state},
};
use crate::{
    db::{Result, Tx, sqlite::Params},
    wire::{MessageId, MessageState, PeerId, Receipt, Route, Timestamp},
};
use std::collections::BTreeSet;

/// The effects of a committed change on those who are connected. It holds only what the tables cannot tell later: who is to look
/// again, what watchers are told, what is remembered of an inbox.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Whose stream and takes look again.
    pub wake: BTreeSet<PeerId>,
    /// Who of them is told that mail waits, if some still does.
    pub hint: BTreeSet<PeerId>,
    /// Which messages changed, in order.
    pub changes: Vec<MessageChange>,
    /// Whose inbox or channel has proved itself: the agent process's key, and when.
    pub proofs: Vec<(PeerId, String, Timestamp)>,
    /// News of the peers' inboxes.
    pub inbox: Vec<(PeerId, InboxNews)>,
}

/// Something that happened to the inbox of a session's client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboxNews {
    /// These messages were written into it in one frame.
    Written(Vec<MessageId>),
    /// This message was let in.
    LetIn(MessageId),
    /// The last frame was not let in; so many messages wait again.
    Missed(usize),
    /// The session's user has said something.
    Prompted,
}

/// A message got into another state, or there by another route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageChange {
    pub id: MessageId,
    pub from: PeerId,
    pub to: PeerId,
    /// Where it stands now.
    pub state: MessageState,
    /// The route by which it got there, or last came near.
    pub route: Option<Route>,
}

impl Effects {
    /// `peer` looks again.
    pub fn waking(peer: &PeerId) -> Self {
        Self { wake: [peer.clone()].into(), ..Self::default() }
    }

    /// `peer` looks again, and is told that mail waits.
    pub fn hinting(peer: &PeerId) -> Self {
        Self { hint: [peer.clone()].into(), ..Self::waking(peer) }
    }

    /// Runs an `UPDATE` of messages that changes their states, and notes each change; returns which messages they are, in order.
    pub(super) fn update(&mut self, tx: &Tx<'_>, sql: &str, values: impl Params) -> Result<Vec<MessageId>> {
        let sql = format!("{sql} RETURNING seq, tag, from_peer, to_peer, state, held_at, route");
        let mut changes = tx.all(&sql, values, |row| {
            let (id, from, to) = (read_id(row)?, read_peer(row, 2)?, read_peer(row, 3)?);
            Ok(MessageChange { id, from, to, state: read_state(row, 4, 5)?, route: read_route(row, 6)? })
        })?;
        changes.sort_by(|a, b| a.id.cmp(&b.id)); // RETURNING promises no order
        let ids = changes.iter().map(|change| change.id.clone()).collect();
        self.changes.extend(changes);
        Ok(ids)
    }

    /// Notes that a message was accepted: its recipient looks at it, and is told that mail waits unless its stream pushes it.
    pub(super) fn accepted(&mut self, message: &Message, is_pushed: bool) {
        let Receipt { message_id, from, to, state, .. } = &message.receipt;
        self.wake.insert(to.clone());
        if !is_pushed {
            self.hint.insert(to.clone());
        }
        self.changes.push(MessageChange {
            id: message_id.clone(),
            from: from.clone(),
            to: to.clone(),
            state: *state,
            route: None,
        });
    }

    /// Notes something about the inbox of `peer`.
    pub fn inbox(&mut self, peer: &PeerId, news: InboxNews) {
        self.wake.insert(peer.clone());
        self.inbox.push((peer.clone(), news));
    }

    /// These effects, and then `later` ones.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        self.wake.extend(later.wake);
        self.hint.extend(later.hint);
        self.changes.extend(later.changes);
        self.proofs.extend(later.proofs);
        self.inbox.extend(later.inbox);
        self
    }
}
