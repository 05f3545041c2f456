//! Held messages: the controls of a recipient's user hold them back on every route, until that user releases them.

use super::{
    Effects, Message,
    message::{COLUMNS, held_number, read},
};
use crate::{
    db::{Result, Tx, View, params, peers::PeerRow},
    wire::{HeldBy, InboundRule, MessageId, PeerId, Timestamp},
};

/// Which messages to a peer are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// None.
    Nothing,
    /// Those of senders in another class of permission modes: one of the two bypasses prompts, the other does not.
    Unequal {
        /// The recipient bypasses them.
        bypasses: bool,
    },
    /// All, for this reason.
    All(HeldBy),
}

/// Held messages that the broker still has to write into the inbox of agent process ?2, whose client asks its user.
const TO_POST: &str = "to_peer = ?1 AND waiting = 1 AND held_at IS NOT NULL AND held_by IN (1, 2) AND pushed_by IS NOT ?2";

impl Rule {
    /// The rule of `peer`.
    pub fn of(peer: &PeerRow) -> Self {
        match peer.inbound {
            InboundRule::Hold => Self::All(HeldBy::Hold),
            InboundRule::Refuse => Self::All(HeldBy::Refuse),
            // Only a client that would itself hold it has somebody to ask.
            InboundRule::Match if !peer.bypasses && peer.inbox.is_none() => Self::Nothing,
            InboundRule::Match => Self::Unequal { bypasses: peer.bypasses },
            InboundRule::Accept => Self::Nothing,
        }
    }

    /// Why this rule holds a message, if it does.
    pub(super) fn holds(self, passes: bool, bypassed: bool) -> Option<HeldBy> {
        match self {
            Self::Nothing => None,
            Self::Unequal { bypasses } => (!passes && bypassed != bypasses).then_some(HeldBy::Mode),
            Self::All(by) => Some(by),
        }
    }
}

/// Applies the rule of `peer`, which has changed, to what waits for it: lets go what it does not hold any more, holds what it
/// does. What may have been shown meanwhile counts as such.
pub fn apply_rule(tx: &Tx<'_>, peer: &PeerRow, now: Timestamp) -> Result<Effects> {
    let rule = Rule::of(peer);
    // The class of senders that are let in; none if it does not matter.
    let (by, equal) = match rule {
        Rule::Nothing => (None, None),
        Rule::Unequal { bypasses } => (Some(HeldBy::Mode), Some(bypasses)),
        Rule::All(by) => (Some(by), None),
    };
    let sql = "UPDATE message SET held_at = NULL, held_by = 0, pushed_by = NULL
               WHERE to_peer = ?1 AND waiting = 1 AND held_at IS NOT NULL
               AND (?2 = 0 OR held_by <> ?2 OR ?3 IS NOT NULL AND (passes = 1 OR bypassed = ?3))";
    tx.run(sql, params![peer.id.as_str(), held_number(by), equal])?;
    if rule != Rule::Nothing {
        let sql = "UPDATE message SET held_at = ?4, held_by = ?2
                   WHERE to_peer = ?1 AND waiting = 1 AND state = 0 AND holder = 0 AND held_at IS NULL AND released = 0
                   AND (?3 IS NULL OR passes = 0 AND bypassed <> ?3)";
        tx.run(sql, params![peer.id.as_str(), held_number(by), equal, now.as_millis()])?;
    }
    Ok(Effects::hinting(&peer.id))
}

/// Whether [`to_post`] would give something.
pub fn has_to_post(view: &View<'_>, peer: &PeerId, agent: &str) -> Result<bool> {
    view.get(&format!("SELECT EXISTS (SELECT 1 FROM message WHERE {TO_POST})"), [peer.as_str(), agent])
}

/// The held messages to `peer` that its agent process `agent` was not given yet, oldest first. They count as given from now on.
pub fn to_post(tx: &Tx<'_>, peer: &PeerId, agent: &str, most: u32) -> Result<(Vec<Message>, Effects)> {
    let sql = format!(
        "UPDATE message SET pushed_by = ?2, handed = handed + 1
         WHERE seq IN (SELECT seq FROM message WHERE {TO_POST} ORDER BY seq LIMIT ?3) RETURNING {COLUMNS}"
    );
    let mut messages = tx.all(&sql, params![peer.as_str(), agent, most], read)?;
    messages.sort_by_key(|message| message.receipt.message_id.seq()); // RETURNING promises no order
    Ok((messages, Effects::default()))
}

/// Notes that held messages were written into the inbox of their recipient's client.
pub fn posted(tx: &Tx<'_>, ids: &[MessageId], now: Timestamp) -> Result<Effects> {
    for id in ids {
        tx.run("UPDATE message SET offered_at = ?2 WHERE seq = ?1 AND held_at IS NOT NULL", params![id.seq(), now.as_millis()])?;
    }
    Ok(Effects::default())
}

/// The user lets a held message in; false if it is not held.
pub fn release(tx: &Tx<'_>, id: &MessageId) -> Result<(bool, Effects)> {
    let mut effects = Effects::default();
    let sql = "UPDATE message SET held_at = NULL, released = 1, passes = 1, pushed_by = NULL
               WHERE seq = ?1 AND tag = ?2 AND held_at IS NOT NULL AND state < 2";
    effects.update(tx, sql, params![id.seq(), id.tag()])?;
    let to = effects.changes.first().map(|change| Effects::hinting(&change.to));
    Ok((to.is_some(), effects.and(to.unwrap_or_default())))
}
