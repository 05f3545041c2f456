//! Stored messages: receipts, counts, the history and its cleanup.

use super::{Message, message::read_peer};
use crate::{
    db::{
        Result, Tx, View, params,
        sqlite::{self, types::Value},
    },
    wire::{MessageId, MessageState, PeerId, Timestamp},
};
use std::collections::HashMap;

/// The message with this id.
pub fn get(view: &View<'_>, id: &MessageId) -> Result<Option<Message>> {
    Message::one(view, "seq = ?1 AND tag = ?2", params![id.seq(), id.tag()])
}

/// The message with this number.
pub fn numbered(view: &View<'_>, seq: i64) -> Result<Option<Message>> {
    Message::one(view, "seq = ?1", [seq])
}

/// Which messages; by default all. Places stand for messages: `m42-…` is 42.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// From or to one of these.
    pub peers: Option<Vec<PeerId>>,
    pub to: Option<Vec<PeerId>>,
    /// And from or to one of these.
    pub repo: Option<Vec<PeerId>>,
    /// Before this place.
    pub before: Option<i64>,
    /// After this place, and then the oldest first.
    pub after: Option<i64>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub state: Option<MessageState>,
    /// In the conversation of the message at this place.
    pub thread: Option<i64>,
}

/// What stands for one of a list of peers, given as JSON.
const PEERS: &str = "IN (SELECT value FROM json_each";
/// The messages among which those in `state` are, as an index finds them, if they are few beside a long history.
pub(super) fn few(state: MessageState) -> Option<&'static str> {
    match state {
        MessageState::Queued | MessageState::Forwarded | MessageState::Offered | MessageState::Held => {
            Some("message INDEXED BY message_expiry WHERE state < 2")
        }
        MessageState::Expired => Some("message INDEXED BY message_expired WHERE state > 2"),
        MessageState::Delivered => None,
    }
}

/// A condition on a message, with its named parameters.
pub(super) struct Condition {
    pub sql: String,
    pub values: Vec<(&'static str, Value)>,
}

impl Filter {
    /// The condition that a message passes this filter.
    pub(super) fn condition(&self) -> Condition {
        // Ids contain only plain letters and need no escapes.
        let list = |ids: &Vec<PeerId>| format!("[{}]", ids.iter().map(|id| format!("\"{id}\"")).collect::<Vec<_>>().join(","));
        let party = |name: &str| format!("(from_peer {PEERS}({name})) OR to_peer {PEERS}({name})))");
        let terms = [
            (":before", self.before.map(Value::from), "seq < :before".to_owned()),
            (":after", self.after.map(Value::from), "seq > :after".to_owned()),
            (":since", self.since.map(|time| time.as_millis().into()), "sent_at >= :since".to_owned()),
            (":until", self.until.map(|time| time.as_millis().into()), "sent_at < :until".to_owned()),
            (":peers", self.peers.as_ref().map(|ids| list(ids).into()), party(":peers")),
            (":repo", self.repo.as_ref().map(|ids| list(ids).into()), party(":repo")),
            (":to", self.to.as_ref().map(|ids| list(ids).into()), format!("to_peer {PEERS}(:to))")),
            (":thread", self.thread.map(Value::from), format!("seq IN ({THREAD})")),
        ];
        let mut condition = Condition { sql: "TRUE".to_owned(), values: Vec::new() };
        for (name, value, term) in terms {
            if let Some(value) = value {
                condition.sql += &format!(" AND {term}");
                condition.values.push((name, value));
            }
        }
        if let Some(few) = self.state.and_then(few) {
            condition.sql += &format!(" AND seq IN (SELECT seq FROM {few})");
        }
        condition.sql += match self.state {
            None => "",
            Some(MessageState::Queued) => " AND state = 0 AND held_at IS NULL AND ifnull(link, 0) >= 0",
            Some(MessageState::Forwarded) => " AND state = 0 AND link < 0",
            Some(MessageState::Offered) => " AND state = 1 AND held_at IS NULL",
            Some(MessageState::Held) => " AND state < 2 AND held_at IS NOT NULL",
            Some(MessageState::Delivered) => " AND state = 2",
            Some(MessageState::Expired) => " AND state > 2",
        };
        condition
    }
}

impl Condition {
    /// The values as the database takes them, and those of a query's own parameters.
    pub(super) fn with<'a>(
        &'a self,
        own: &[(&'static str, &'a dyn sqlite::ToSql)],
    ) -> Vec<(&'static str, &'a dyn sqlite::ToSql)> {
        let values = self.values.iter().map(|(name, value)| (*name, value as &dyn sqlite::ToSql));
        values.chain(own.iter().copied()).collect()
    }
}

/// The places of the conversation of the message at `:thread`: `up` goes to its beginning, `thread` from there to all answers.
const THREAD: &str = "
    WITH RECURSIVE
    up (seq, reply_to) AS (
        SELECT seq, reply_to FROM message WHERE seq = :thread
        UNION SELECT of.seq, of.reply_to FROM up CROSS JOIN message AS of
            ON of.seq = CAST(substr(up.reply_to, 2) AS INTEGER) AND up.reply_to = 'm' || of.seq || '-' || of.tag),
    thread (seq, id) AS (
        SELECT * FROM (SELECT seq, 'm' || seq || '-' || tag FROM message WHERE seq IN (SELECT seq FROM up) ORDER BY seq LIMIT 1)
        UNION SELECT answer.seq, 'm' || answer.seq || '-' || answer.tag FROM thread CROSS JOIN message AS answer
            ON answer.reply_to = thread.id)
    SELECT seq FROM thread";

/// The messages that pass `filter`: newest first, but oldest first if it has `after`.
pub fn list(view: &View<'_>, filter: &Filter, most: u32) -> Result<Vec<Message>> {
    let order = if filter.after.is_some() { "ASC" } else { "DESC" };
    let condition = filter.condition();
    let ordered = format!("{} ORDER BY seq {order} LIMIT :most", condition.sql);
    Message::all(view, &ordered, &condition.with(&[(":most", &most)])[..])
}

/// The first message from `from` to `to` that names `question`.
pub fn answer(view: &View<'_>, question: &MessageId, from: &PeerId, to: &PeerId) -> Result<Option<Message>> {
    // `seq` limits the search to messages after the question.
    let condition = "seq > ?1 AND reply_to = ?2 AND from_peer = ?3 AND to_peer = ?4 ORDER BY seq LIMIT 1";
    Message::one(view, condition, params![question.seq(), question.to_string(), from.as_str(), to.as_str()])
}

/// An upper bound on the number of stored messages: the distance from the oldest to the newest.
pub fn stored(view: &View<'_>) -> Result<u64> {
    let sql = "SELECT coalesce((SELECT max(seq) FROM message) - (SELECT min(seq) FROM message) + 1, 0)";
    view.get::<i64>(sql, []).map(i64::unsigned_abs)
}

/// How many messages wait for `peer`.
pub fn waiting(view: &View<'_>, peer: &PeerId) -> Result<u32> {
    view.get("SELECT count(*) FROM message WHERE to_peer = ?1 AND waiting = 1", [peer.as_str()])
}

/// How many messages wait for `peer`, if they are `most` or more. The first and the last of them bound their number, and an index
/// finds both at once, while a count of a long backlog would cost more than storing a message.
pub fn waiting_from(view: &View<'_>, peer: &PeerId, most: u32) -> Result<Option<u32>> {
    let sql = "SELECT (SELECT max(seq) FROM message WHERE to_peer = ?1 AND waiting = 1)
                    - (SELECT min(seq) FROM message WHERE to_peer = ?1 AND waiting = 1) + 1";
    let span = view.get::<Option<i64>>(sql, [peer.as_str()])?.unwrap_or_default();
    let waiting = if span < i64::from(most) { None } else { Some(waiting(view, peer)?) };
    Ok(waiting.filter(|waiting| *waiting >= most))
}

/// Whether messages wait for `peer`.
pub fn is_waiting(view: &View<'_>, peer: &PeerId) -> Result<bool> {
    view.get("SELECT EXISTS (SELECT 1 FROM message WHERE to_peer = ?1 AND waiting = 1)", [peer.as_str()])
}

/// The newest message that waits for `peer` and is not held. None if one up to `after` still waits.
pub fn newest_waiting(view: &View<'_>, peer: &PeerId, after: Option<&MessageId>) -> Result<Option<MessageId>> {
    let waiting = "to_peer = ?1 AND waiting = 1 AND held_at IS NULL";
    let end = |order| Message::one(view, &format!("{waiting} ORDER BY seq {order} LIMIT 1"), [peer.as_str()]);
    let is_new = |oldest: Message| after.is_none_or(|after| oldest.receipt.message_id.seq() > after.seq());
    if !end("ASC")?.is_some_and(is_new) {
        return Ok(None);
    }
    Ok(end("DESC")?.map(|newest| newest.receipt.message_id))
}

/// The number of waiting messages for each peer that has any.
pub fn waiting_by_peer(view: &View<'_>) -> Result<HashMap<PeerId, u32>> {
    let sql = "SELECT to_peer, count(*) FROM message WHERE waiting = 1 GROUP BY to_peer";
    let counts = view.all(sql, [], |row| Ok((read_peer(row, 0)?, row.get(1)?)))?;
    Ok(counts.into_iter().collect())
}

/// How many messages wait for all peers together. The command line has no mailbox and does not count.
pub fn waiting_in_all(view: &View<'_>) -> Result<u64> {
    let sql = "SELECT count(*) FROM peer CROSS JOIN message ON to_peer = peer.id AND waiting = 1";
    view.get::<i64>(sql, []).map(i64::unsigned_abs)
}

/// Removes messages that ended before `before`. Looks at no more than `window` rows after `cursor`. Returns the new cursor, or
/// `None` at the end.
pub fn forget_ended(tx: &Tx<'_>, before: Timestamp, cursor: i64, window: u32) -> Result<Option<i64>> {
    let sql = "SELECT max(seq), min(sent_at) FROM (SELECT seq, sent_at FROM message WHERE seq > ?1 ORDER BY seq LIMIT ?2)";
    let bounds: Option<(Option<i64>, Option<i64>)> =
        tx.one(sql, params![cursor, window], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((Some(last), _)) = bounds.filter(|(_, oldest)| *oldest < Some(before.as_millis())) else { return Ok(None) };
    let sql = "DELETE FROM message WHERE seq > ?1 AND seq <= ?2 AND state >= 2 AND coalesce(delivered_at, expired_at) < ?3";
    tx.run(sql, params![cursor, last, before.as_millis()])?;
    Ok(Some(last))
}
