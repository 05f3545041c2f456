//! What is held: the controls of a recipient's user keep it back, whatever route is open, until that user lets it in.

use super::messages::{COLUMNS, Message, held_number, read};
use crate::wire::{HeldBy, MessageId, PeerId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Result, params};

/// Which messages to a peer are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rule {
    /// None.
    #[default]
    Nothing,
    /// Those of senders in another class of permission modes: the recipient bypasses prompts and they do not, or the other way
    /// round.
    Unequal {
        /// The recipient bypasses them.
        bypasses: bool,
    },
    /// All, for this reason.
    All(HeldBy),
}

impl Rule {
    /// Why a message is held by this rule; none if it is not.
    pub fn holds(self, passes: bool, bypassed: bool) -> Option<HeldBy> {
        match self {
            Self::Nothing => None,
            Self::Unequal { bypasses } => (!passes && bypassed != bypasses).then_some(HeldBy::Mode),
            Self::All(by) => Some(by),
        }
    }
}

/// Applies a rule that has changed to what waits for `peer`: lets go what it does not hold any more, holds what it does. What
/// may have been shown meanwhile counts as such.
pub fn apply(connection: &Connection, peer: &PeerId, rule: Rule, now: Timestamp) -> Result<()> {
    // The class of senders that are let in; none if it does not matter.
    let (number, equal) = match rule {
        Rule::Nothing => (0, None),
        Rule::Unequal { bypasses } => (held_number(HeldBy::Mode), Some(bypasses)),
        Rule::All(by) => (held_number(by), None),
    };
    let sql = "UPDATE message SET held_at = NULL, held_by = 0, pushed_by = NULL
               WHERE to_peer = ?1 AND waiting = 1 AND held_at IS NOT NULL AND (?2 = 0 OR held_by <> ?2 OR ?3 IS NOT NULL AND (passes = 1 OR bypassed = ?3))";
    connection.prepare_cached(sql)?.execute(params![peer.as_str(), number, equal])?;
    if rule != Rule::Nothing {
        let sql = "UPDATE message SET held_at = ?4, held_by = ?2
                   WHERE to_peer = ?1 AND waiting = 1 AND state = 0 AND lease IS NULL AND held_at IS NULL AND released = 0
                   AND (?3 IS NULL OR passes = 0 AND bypassed <> ?3)";
        connection.prepare_cached(sql)?.execute(params![peer.as_str(), number, equal, now.as_millis()])?;
    }
    Ok(())
}

/// Whether there are held messages to `peer` that its agent process `agent` was not given yet.
pub fn has_to_post(connection: &Connection, peer: &PeerId, agent: &str) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM message WHERE to_peer = ?1 AND waiting = 1 AND held_at IS NOT NULL
                              AND held_by IN (1, 2) AND pushed_by IS NOT ?2)";
    connection.prepare_cached(sql)?.query_row([peer.as_str(), agent], |row| row.get(0))
}

/// The held messages to `peer` that its agent process `agent` was not given yet, oldest first. They count as given from now on.
pub fn to_post(connection: &Connection, peer: &PeerId, agent: &str, most: u32) -> Result<Vec<Message>> {
    let sql = format!(
        "UPDATE message SET pushed_by = ?2, handed = handed + 1
         WHERE seq IN (SELECT seq FROM message WHERE to_peer = ?1 AND waiting = 1 AND held_at IS NOT NULL AND held_by IN (1, 2)
                       AND pushed_by IS NOT ?2 ORDER BY seq LIMIT ?3)
         RETURNING {COLUMNS}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut messages: Vec<Message> = statement.query_map(params![peer.as_str(), agent, most], read)?.collect::<Result<_>>()?;
    messages.sort_by_key(|message| message.id.seq()); // RETURNING promises no order
    Ok(messages)
}

/// Notes that held messages were written into the inbox of their recipient's client.
pub fn posted(connection: &Connection, ids: &[MessageId], now: Timestamp) -> Result<()> {
    let sql = "UPDATE message SET offered_at = ?2 WHERE seq = ?1 AND held_at IS NOT NULL";
    let mut mark = connection.prepare_cached(sql)?;
    ids.iter().try_for_each(|id| mark.execute(params![id.seq(), now.as_millis()]).map(drop))
}

/// The user lets a held message in: to whom it goes; none if it is not held.
pub fn release(connection: &Connection, id: &MessageId) -> Result<Option<String>> {
    let sql = "UPDATE message SET held_at = NULL, released = 1, passes = 1, pushed_by = NULL
               WHERE seq = ?1 AND tag = ?2 AND held_at IS NOT NULL AND state < 2 RETURNING to_peer";
    connection.prepare_cached(sql)?.query_row(params![id.seq(), id.tag()], |row| row.get(0)).optional()
}
