//! Full-text search: brings the index up to date, and finds messages by their words. The index itself is in `db/index.rs`.

use super::{Message, history::Filter, message::COLUMNS};
use crate::db::{Result, Tx, params};

/// How many matches are ranked, from the newest back. It bounds the time for a word that most messages have.
const RANKED: usize = 2_000;

/// Reads up to `most` messages into the index; returns whether there are more.
pub fn catch_up(index: &Tx<'_>, most: u32) -> Result<bool> {
    let (mut upto, tag): (i64, String) =
        index.one("SELECT upto, tag FROM source", [], |row| Ok((row.get(0)?, row.get(1)?)))?.unwrap_or_default();
    // A database that was put back from a copy has other messages at the same places, or none.
    let sql = "SELECT ?1 > coalesce((SELECT seq FROM mail.sqlite_sequence WHERE name = 'message'), 0)
                   OR EXISTS (SELECT 1 FROM message WHERE seq = ?1 AND tag <> ?2)";
    if index.get(sql, params![upto, tag])? {
        index.run("INSERT INTO words (words) VALUES ('delete-all')", [])?;
        upto = 0;
    }
    let sql =
        "SELECT seq, tag FROM (SELECT seq, tag FROM message WHERE seq > ?1 ORDER BY seq LIMIT ?2) ORDER BY seq DESC LIMIT 1";
    let last: Option<(i64, String)> = index.one(sql, params![upto, most], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((last, tag)) = last else { return Ok(false) };
    let sql = "INSERT INTO words (rowid, text) SELECT seq, text FROM message WHERE seq > ?1 AND seq <= ?2";
    let read = index.run(sql, params![upto, last])?;
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

/// The messages that match and pass `filter`, best first.
pub fn find(index: &Tx<'_>, matching: &str, filter: &Filter, most: u32) -> Result<Vec<Message>> {
    let condition = filter.condition();
    let sql = format!(
        "SELECT {COLUMNS} FROM
             (SELECT words.rank AS score, message.* FROM words CROSS JOIN message ON seq = words.rowid
              WHERE words MATCH :words AND {} ORDER BY words.rowid DESC LIMIT {RANKED})
         ORDER BY score, seq DESC LIMIT :most",
        condition.sql
    );
    index.all(&sql, &condition.with(&[(":words", &matching), (":most", &most)])[..], Message::read)
}
