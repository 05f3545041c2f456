//! Held messages: the user's controls hold them back on every route until that user releases them.

use super::{
    Message, Result, Transaction,
    holder::Shown,
    message::{COLUMNS, held_number},
};
use crate::{
    db::{self, PeerRow, View, params},
    wire::{HeldBy, InboundRule, MessageId, PeerId},
};

/// The rule that decides which messages to a peer are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// None.
    Nothing,
    /// None here: the recipient is on another machine, whose broker decides.
    Elsewhere,
    /// Those where only one of sender and recipient bypasses permission prompts.
    Unequal {
        /// Whether the recipient bypasses prompts.
        bypasses: bool,
    },
    /// All, for this reason.
    All(HeldBy),
}

/// Held messages that the broker still has to write into the inbox of agent process ?2, where the client asks its user.
const TO_POST: &str = "to_peer = ?1 AND waiting = 1 AND held_at IS NOT NULL AND held_by IN (1, 2) AND pushed_by IS NOT ?2";

impl Rule {
    /// The rule of `peer`.
    pub fn of(peer: &PeerRow) -> Self {
        match peer.machine {
            Some(_) => Self::Elsewhere,
            None => Self::new(peer.inbound, peer.bypasses, peer.inbox.is_some()),
        }
    }

    /// The rule of the peer with this id, if there is one. Each send needs it, so this reads no more of the row.
    pub(super) fn stored(view: &View<'_>, peer: &PeerId) -> db::Result<Option<Self>> {
        view.one(
            "SELECT inbound, bypasses, inbox IS NOT NULL, machine IS NOT NULL FROM peer WHERE id = ?1",
            [peer.as_str()],
            |row| {
                let inbound = InboundRule::parse(row.get_ref(0)?.as_str()?).unwrap_or_default();
                Ok(if row.get(3)? { Self::Elsewhere } else { Self::new(inbound, row.get(1)?, row.get(2)?) })
            },
        )
    }

    fn new(inbound: InboundRule, bypasses: bool, has_inbox: bool) -> Self {
        match inbound {
            InboundRule::Hold => Self::All(HeldBy::Hold),
            InboundRule::Refuse => Self::All(HeldBy::Refuse),
            // Only a client that itself holds messages can ask its user.
            InboundRule::Match if !bypasses && !has_inbox => Self::Nothing,
            InboundRule::Match => Self::Unequal { bypasses },
            InboundRule::Accept => Self::Nothing,
        }
    }

    /// The reason why this rule holds a message, if it does.
    pub(super) fn holds(self, passes: bool, bypassed: bool) -> Option<HeldBy> {
        match self {
            Self::Nothing | Self::Elsewhere => None,
            Self::Unequal { bypasses } => (!passes && bypassed != bypasses).then_some(HeldBy::Mode),
            Self::All(by) => Some(by),
        }
    }
}

/// Applies the changed rule of `peer` to its waiting messages: releases those it no longer holds, and holds those it does now.
/// Messages that may already have been shown stay free.
pub fn apply_rule(tx: &mut Transaction<'_>, peer: &PeerRow) -> Result<()> {
    let rule = Rule::of(peer);
    // Whether the senders that are let in bypass prompts, if that matters.
    let (by, equal) = match rule {
        Rule::Nothing | Rule::Elsewhere => (None, None),
        Rule::Unequal { bypasses } => (Some(HeldBy::Mode), Some(bypasses)),
        Rule::All(by) => (Some(by), None),
    };
    let sql = "UPDATE message SET held_at = NULL
               WHERE to_peer = ?1 AND waiting = 1 AND held_at IS NOT NULL
               AND (held_by <> ?2 OR bypassed = ?3)";
    tx.run(sql, params![peer.id.as_str(), held_number(by), equal])?;
    if by.is_some() {
        let sql = "UPDATE message SET held_at = ?4, held_by = ?2
                   WHERE to_peer = ?1 AND waiting = 1 AND state = 0 AND holder = 0 AND held_at IS NULL AND released = 0
                   AND (?3 IS NULL OR passes = 0 AND bypassed <> ?3)";
        tx.run(sql, params![peer.id.as_str(), held_number(by), equal, tx.now.as_millis()])?;
    }
    tx.hint(&peer.id);
    Ok(())
}

/// Whether [`to_post`] would return any message.
pub fn has_to_post(view: &View<'_>, peer: &PeerId, agent: &str) -> db::Result<bool> {
    view.get(&format!("SELECT EXISTS (SELECT 1 FROM message WHERE {TO_POST})"), [peer.as_str(), agent])
}

/// The held messages to `peer` that its agent process `agent` was not given yet, oldest first. From now on they count as given.
pub fn to_post(tx: &Transaction<'_>, peer: &PeerId, agent: &str, most: u32) -> Result<Vec<Message>> {
    let sql = format!(
        "UPDATE message SET pushed_by = ?2, handed = handed + 1
         WHERE seq IN (SELECT seq FROM message WHERE {TO_POST} ORDER BY seq LIMIT ?3) RETURNING {COLUMNS}"
    );
    let mut messages = tx.all(&sql, params![peer.as_str(), agent, most], Message::read)?;
    messages.sort_by_key(|message| message.receipt.message_id.seq()); // RETURNING promises no order
    Ok(messages)
}

/// Records that held messages were written into the inbox of their recipient's client.
pub fn posted(tx: &Transaction<'_>, ids: &[MessageId]) -> Result<()> {
    let sql = "UPDATE message SET offered_at = ?2 WHERE seq = ?1 AND held_at IS NOT NULL";
    ids.iter().try_for_each(|id| Ok(tx.run(sql, params![id.seq(), tx.now.as_millis()]).map(drop)?))
}

/// Releases a held message at the user's request; false if it is not held.
pub fn release(tx: &mut Transaction<'_>, id: &MessageId) -> Result<bool> {
    let sql = "UPDATE message SET held_at = NULL, released = 1
               WHERE seq = ?1 AND tag = ?2 AND held_at IS NOT NULL AND state < 2";
    tx.update(sql, params![id.seq(), id.tag()])?;
    let to = tx.effects.changes.first().map(|change| change.to.clone());
    if let Some(to) = &to {
        tx.hint(to);
    }
    Ok(to.is_some())
}

/// Releases a held message because the user has let in its beginning; the whole text still has to be shown.
pub(super) fn let_in_part(tx: &mut Transaction<'_>, id: &MessageId) -> Result<()> {
    let sql = "UPDATE message SET state = 1, route = 'inbox', offered_at = ?2, held_at = NULL, again = ?3, handed = handed - 1
               WHERE seq = ?1 AND waiting = 1";
    tx.update(sql, params![id.seq(), tx.now.as_millis(), Shown::Announced]).map(drop)
}
