//! Full-text search: brings the index up to date, and finds messages by their words. The index itself is in `db/index.rs`.

use super::{
    Message,
    history::{Filter, few},
    message::COLUMNS,
};
use crate::{
    db::{Part, Result, Tx, best, params},
    wire::PeerId,
};
use std::{collections::HashMap, ops::ControlFlow};

/// How many matches are ranked, from the newest back, and how many bytes of text. They bound the time for a word that most messages
/// have, and the memory.
const RANKED: usize = 1_000;
const RANKED_BYTES: usize = 1 << 20;
/// How many places share a row of `sent`.
const SHARE: u32 = 1_000;

/// Reads up to `most` messages into the index; returns whether there are more.
pub fn catch_up(index: &Tx<'_>, most: u32) -> Result<bool> {
    let (mut upto, tag): (i64, String) =
        index.one("SELECT upto, tag FROM source", [], |row| Ok((row.get(0)?, row.get(1)?)))?.unwrap_or_default();
    // A database that was put back from a copy has other messages at the same places, or none.
    let sql = "SELECT ?1 > coalesce((SELECT seq FROM mail.sqlite_sequence WHERE name = 'message'), 0)
                   OR EXISTS (SELECT 1 FROM message WHERE seq = ?1 AND tag <> ?2)";
    if index.get(sql, params![upto, tag])? {
        index.run("INSERT INTO words (words) VALUES ('delete-all')", [])?;
        index.run("DELETE FROM sent", [])?;
        upto = 0;
    }
    let sql =
        "SELECT seq, tag FROM (SELECT seq, tag FROM message WHERE seq > ?1 ORDER BY seq LIMIT ?2) ORDER BY seq DESC LIMIT 1";
    let last: Option<(i64, String)> = index.one(sql, params![upto, most], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((last, tag)) = last else { return Ok(false) };
    let sql = "INSERT INTO words (rowid, body, parties)
                   SELECT seq, text, hex(from_peer) || ' ' || hex(to_peer) FROM message WHERE seq > ?1 AND seq <= ?2";
    let read = index.run(sql, params![upto, last])?;
    let sql = "INSERT INTO sent SELECT seq / ?3 * ?3, min(sent_at), max(sent_at) FROM message WHERE seq > ?1 AND seq <= ?2
                   GROUP BY seq / ?3
               ON CONFLICT DO UPDATE SET oldest = min(oldest, excluded.oldest), newest = max(newest, excluded.newest)";
    index.run(sql, params![upto, last, SHARE])?;
    index.run("UPDATE source SET upto = ?1, tag = ?2", params![last, tag])?;
    Ok(u32::try_from(read).is_ok_and(|read| read >= most))
}

/// Forgets messages that are stored no more, among the next `most` after `cursor`. Returns the new cursor, or `None` at the end.
pub fn forget(index: &Tx<'_>, cursor: i64, most: u32) -> Result<Option<i64>> {
    let sql = "SELECT max(id) FROM (SELECT id FROM words_docsize WHERE id > ?1 ORDER BY id LIMIT ?2)";
    let Some(last) = index.get::<Option<i64>>(sql, params![cursor, most])? else { return Ok(None) };
    let sql = "DELETE FROM words WHERE rowid IN (SELECT id FROM words_docsize WHERE id > ?1 AND id <= ?2
                   AND id NOT IN (SELECT seq FROM message WHERE seq > ?1 AND seq <= ?2))";
    index.run(sql, params![cursor, last])?;
    Ok(Some(last))
}

/// Up to `most` messages that match and pass `filter`, each with an excerpt, best first.
pub fn find(index: &Tx<'_>, matching: &str, filter: &Filter, most: u32) -> Result<Vec<(Message, Vec<Part>)>> {
    let newest = newest(index, matching, filter)?;
    let texts: Vec<&str> = newest.iter().map(|message| message.text.as_str()).collect();
    let best = best(matching, &texts, most)?;
    let mut newest: HashMap<u32, Message> = (0..).zip(newest).collect();
    Ok(best.into_iter().filter_map(|(place, excerpt)| Some((newest.remove(&place)?, excerpt))).collect())
}

/// The newest messages that match and pass `filter`, as many as are ranked.
fn newest(index: &Tx<'_>, matching: &str, filter: &Filter) -> Result<Vec<Message>> {
    let condition = filter.condition();
    let sql = format!(
        "SELECT {COLUMNS} FROM words CROSS JOIN message ON seq = words.rowid
         WHERE words MATCH :words AND {} AND {} ORDER BY words.rowid DESC",
        places(filter),
        condition.sql
    );
    let Some(words) = words(matching, filter) else { return Ok(Vec::new()) };
    let (mut found, mut bytes) = (Vec::new(), 0);
    index.walk(&sql, &condition.with(&[(":words", &words)])[..], |row| {
        let message = Message::read(row)?;
        bytes += message.text.len();
        found.push(message);
        let is_enough = found.len() >= RANKED || bytes >= RANKED_BYTES;
        Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found)
}

/// The query for messages that match and whose parties may pass `filter`; `None` if it lets nobody pass. The index finds the parties'
/// messages faster than the table, which has the last word.
fn words(matching: &str, filter: &Filter) -> Option<String> {
    let mut words = format!("body : ({matching})");
    for parties in [&filter.peers, &filter.repo].into_iter().flatten() {
        let hex = |id: &PeerId| format!("\"{}\"", id.as_str().bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
        let any = parties.iter().map(hex).collect::<Vec<_>>().join(" OR ");
        words += &format!(" AND parties : ({any})");
        if parties.is_empty() {
            return None;
        }
    }
    Some(words)
}

/// The condition on places that leaves out most of the messages that do not pass `filter`, before the table is read.
fn places(filter: &Filter) -> String {
    let mut places = "TRUE".to_owned();
    if filter.since.is_some() {
        places += " AND words.rowid >= coalesce((SELECT min(first) FROM sent WHERE newest >= :since), 1 << 62)";
    }
    if filter.until.is_some() {
        places += &format!(" AND words.rowid < coalesce((SELECT max(first) + {SHARE} FROM sent WHERE oldest < :until), 0)");
    }
    if let Some(few) = filter.state.and_then(few) {
        // The plus sign keeps FTS5 from running the whole query once for each of these places.
        places += &format!(
            " AND words.rowid >= coalesce((SELECT min(seq) FROM {few}), 1 << 62)
              AND words.rowid <= (SELECT max(seq) FROM {few}) AND +words.rowid IN (SELECT seq FROM {few})"
        );
    }
    places
}
