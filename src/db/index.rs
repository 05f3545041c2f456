//! The search index: a file beside the database with the words, parties and times of all messages, but without their texts.
//!
//! Promises:
//! - It is made from the messages alone and may be deleted at any time. It is made anew if it is missing, damaged, of another
//!   version or of another database.
//! - Accepting a message never touches it. Each search, and maintenance, bring it up to date.
//! - A file of its name that is not ours is left untouched.
//!
//! Locks: one transaction at a time; it reads the messages beside the writer.

use super::{
    connect,
    error::{Error, Fault, Result},
    tx::{Met, Tx},
};
use crate::platform::files;
use rusqlite::{Connection, OpenFlags, Row};
use std::{
    fs::{self, Permissions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Marks the file as ours, in the header field `application_id`.
const OURS: i32 = 0x6370_7378;
/// Rises when the tables change; then the index is made anew.
const VERSION: i64 = 2;
/// Words are letters and digits, in any case, with or without accents.
const WORDS: &str = "tokenize = \"unicode61 remove_diacritics 2\"";
/// Beginnings of so many letters are found as words are. Without it, a search for the beginning of very many words takes seconds.
const BEGINNINGS: &str = "prefix = '1 2 3'";
/// Most words of a text in an excerpt.
const EXCERPT: u32 = 24;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const CACHE_KIB: i64 = 2_048;

/// The index of a database.
#[derive(Debug)]
pub struct Index {
    database: PathBuf,
    path: PathBuf,
    turn: Mutex<()>,
}

/// A part of a text, and whether it is a match.
pub type Part = (String, bool);

impl Index {
    /// The index of the database at `database`, which has no links.
    pub(super) fn of(database: &Path) -> Self {
        Self { database: database.to_owned(), path: connect::beside(database, "-search"), turn: Mutex::default() }
    }

    /// Runs `work` in a transaction of the index; it also sees the messages. If it meets damage, it runs again on a new index.
    ///
    /// The tables are `words` with the words of each `body` and the `parties` of each message, `sent` with the `oldest` and `newest`
    /// time of the messages from place `first` on, and `source`, which says how far they reach.
    ///
    /// # Errors
    /// The error of `work`, or that the index cannot be used.
    pub fn with<T, E: From<Error>>(&self, work: impl Fn(&Tx<'_>) -> Result<T, E>) -> Result<T, E> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (result, is_damaged) = self.attempt(&work);
        if !is_damaged {
            return result;
        }
        tracing::warn!("the search index {} is damaged and is made anew", self.path.display());
        self.remove().map_err(|error| self.unusable(&error))?;
        self.attempt(&work).0
    }

    fn attempt<T, E: From<Error>>(&self, work: impl Fn(&Tx<'_>) -> Result<T, E>) -> (Result<T, E>, bool) {
        let connection = match self.open() {
            Ok(connection) => connection,
            Err(error) => {
                let is_damaged = error.is_damage();
                return (Err(error.into()), is_damaged);
            }
        };
        let met = Met::default();
        let noted = |error: rusqlite::Error| {
            *met.borrow_mut() = Fault::of(&error);
            Error::from(error)
        };
        let run = || {
            connection.execute_batch("BEGIN IMMEDIATE").map_err(noted)?;
            let value = work(&Tx::new(&connection, &met))?;
            connection.execute_batch("COMMIT").map_err(noted)?;
            Ok(value)
        };
        let result = run();
        (result, met.into_inner().is_some())
    }

    fn open(&self) -> Result<Connection> {
        let unusable = |error: io::Error| self.unusable(&error);
        if !self.is_ours().map_err(unusable)? {
            return Err(self.unusable(&"it is no search index of claude-peers"));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let connection =
            Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI)?;
        fs::set_permissions(&self.path, Permissions::from_mode(0o600)).map_err(unusable)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        let meta = fs::metadata(&self.database).map_err(unusable)?;
        let database = format!("{VERSION} {}:{}", meta.dev(), meta.ino());
        if !is_of(&connection, &database)? {
            let tables = format!(
                "BEGIN IMMEDIATE;
                 PRAGMA application_id = {OURS};
                 DROP TABLE IF EXISTS words;
                 DROP TABLE IF EXISTS sent;
                 DROP TABLE IF EXISTS source;
                 CREATE VIRTUAL TABLE words USING fts5 (body, parties, content = '', contentless_delete = 1, {BEGINNINGS}, {WORDS});
                 CREATE TABLE sent (first INTEGER PRIMARY KEY, oldest INTEGER, newest INTEGER);
                 CREATE TABLE source (database TEXT, upto INTEGER, tag TEXT);
                 INSERT INTO source VALUES ('{database}', 0, '');
                 COMMIT"
            );
            connection.execute_batch(&tables)?;
        }
        connection.execute("ATTACH ?1 AS mail", [connect::uri(&self.database, "mode=ro")])?;
        Ok(connection)
    }

    fn unusable(&self, why: &dyn std::fmt::Display) -> Error {
        Error::Index { path: self.path.clone(), why: why.to_string() }
    }

    /// Whether the file is an index of ours, or there is none. Looks at the file itself: SQLite could change it.
    fn is_ours(&self) -> io::Result<bool> {
        let mut header = [0; 72];
        match files::open(&self.path).and_then(|file| file.take(72).read(&mut header)) {
            Ok(0) => Ok(true),
            Ok(_) => Ok(header.starts_with(b"SQLite format 3\0") && header[68..72] == OURS.to_be_bytes()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn remove(&self) -> io::Result<()> {
        for file in [self.path.clone(), connect::journal(&self.path)] {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether the index is of this database and version. An empty file is not.
fn is_of(connection: &Connection, database: &str) -> rusqlite::Result<bool> {
    let tables = "SELECT count(*) = 3 FROM sqlite_schema WHERE name IN ('words', 'sent', 'source')";
    Ok(connection.query_row(tables, [], |row| row.get(0))?
        && connection
            .query_row("SELECT count(*) FROM source WHERE database = ?1", [database], |row| Ok(row.get::<_, i64>(0)? == 1))?)
}

/// The `most` texts that fit `matching` best, as places in `texts`, each with an excerpt in parts. A text fits better if its matches
/// are more, or a larger share of it; of equal texts the first comes first.
///
/// # Errors
/// That `matching` is no query of FTS5.
pub fn best(matching: &str, texts: &[&str], most: u32) -> Result<Vec<(u32, Vec<Part>)>> {
    let memory = Connection::open_in_memory()?;
    memory.execute_batch(&format!("BEGIN; CREATE VIRTUAL TABLE words USING fts5 (text, {WORDS})"))?;
    let mut insert = memory.prepare("INSERT INTO words (rowid, text) VALUES (?1, ?2)")?;
    for (place, text) in (0_u32..).zip(texts) {
        insert.execute((place, text.replace(['\u{2}', '\u{3}'], " ")))?;
    }
    let sql = "SELECT rowid, snippet(words, 0, char(2), char(3), '…', ?3) FROM words WHERE words MATCH ?1 ORDER BY rank, rowid LIMIT ?2";
    let read = |row: &Row<'_>| Ok((row.get(0)?, parts(&row.get::<_, String>(1)?)));
    Ok(memory.prepare(sql)?.query_map((matching, most, EXCERPT), read)?.collect::<rusqlite::Result<_>>()?)
}

/// Takes apart a text with a match between each `\u{2}` and `\u{3}`.
fn parts(marked: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for piece in marked.split('\u{2}') {
        match piece.split_once('\u{3}') {
            Some((hit, rest)) => parts.extend([(hit.to_owned(), true), (rest.to_owned(), false)]),
            None => parts.push((piece.to_owned(), false)),
        }
    }
    parts.retain(|(text, _)| !text.is_empty());
    parts
}
