//! Imports the database of the legacy broker (user_version 0, tables `peers` and `messages`). Peers and messages are copied
//! into our tables. The legacy tables stay as they are, so going back to that broker loses nothing.

use super::error::damage;
use crate::platform::{clock, random};
use crate::wire::{PeerId, Timestamp};
use rusqlite::{Connection, Row, Transaction, params};
use std::time::Duration;

/// The tables of the legacy broker: as it creates them, and the columns that are read here.
pub(super) const LEGACY_TABLES: [(&str, &str, &[&str]); 2] = [
    (
        "peers",
        "CREATE TABLE peers (id TEXT PRIMARY KEY, pid INTEGER NOT NULL, cwd TEXT NOT NULL, git_root TEXT, tty TEXT,
             summary TEXT NOT NULL DEFAULT '', registered_at TEXT NOT NULL, last_seen TEXT NOT NULL)",
        &["id", "pid", "cwd", "tty", "summary", "registered_at", "last_seen"],
    ),
    (
        "messages",
        "CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, from_id TEXT NOT NULL, to_id TEXT NOT NULL,
             text TEXT NOT NULL, sent_at TEXT NOT NULL, delivered INTEGER NOT NULL DEFAULT 0)",
        &["id", "from_id", "to_id", "text", "sent_at", "delivered"],
    ),
];

/// How long imported messages wait for their recipients.
const EXPIRY_OF_IMPORTED: Duration = Duration::from_secs(7 * 86_400);

/// Copies the legacy tables if they exist. Undelivered messages keep waiting for their recipients, and their time to live
/// starts now. Messages marked as delivered were only *fetched*; they are stored as offered.
pub(super) fn import(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    if !is_there(tx)? {
        return Ok(());
    }
    let fault: String = tx.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if fault != "ok" {
        return Err(damage(fault)); // what is written could get into the wrong table
    }
    for (table, _, columns) in LEGACY_TABLES {
        if !has_all(tx, table, columns)? {
            return Err(damage(format!("the legacy table {table} lacks a column")));
        }
    }
    let now = clock::now();
    // SQLite's loose types let these columns hold values of any type, so each is cast to the type it should have.
    let columns = "CAST(id AS TEXT), CAST(pid AS INTEGER), CAST(cwd AS TEXT), CAST(tty AS TEXT), CAST(summary AS TEXT),
                   CAST(registered_at AS TEXT), CAST(last_seen AS TEXT)";
    let mut peers = tx.prepare(&format!("SELECT {columns} FROM peers WHERE id IS NOT NULL"))?;
    let mut rows = peers.query([])?;
    let mut imported_peers = 0;
    while let Some(row) = rows.next()? {
        let id = text(row, 0)?.unwrap_or_default();
        if id.parse::<PeerId>().is_err() {
            continue; // nobody can address an invalid id; the row stays in the legacy table
        }
        let time = |column| {
            Ok::<_, rusqlite::Error>(
                text(row, column)?.as_deref().and_then(|text| text.parse::<Timestamp>().ok()).unwrap_or(now).as_millis(),
            )
        };
        let summary = text(row, 4)?.unwrap_or_default();
        imported_peers += tx.execute(
            "INSERT OR IGNORE INTO peer (id, name, legacy, pid, cwd, tty, summary, summary_source, registered_at, last_seen)
             VALUES (?1, ?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                id,
                row.get::<_, Option<i64>>(1)?.and_then(|pid| u32::try_from(pid).ok()),
                text(row, 2)?.unwrap_or_default(),
                text(row, 3)?,
                summary,
                if summary.is_empty() { "none" } else { "session" },
                time(5)?,
                time(6)?
            ],
        )?;
    }
    let columns =
        "CAST(from_id AS TEXT), CAST(to_id AS TEXT), CAST(text AS TEXT), CAST(sent_at AS TEXT), CAST(delivered AS INTEGER)";
    let mut messages = tx.prepare(&format!("SELECT {columns} FROM messages ORDER BY id"))?;
    let mut rows = messages.query([])?;
    let mut imported_messages = 0;
    while let Some(row) = rows.next()? {
        let sent_at = text(row, 3)?.as_deref().and_then(|text| text.parse::<Timestamp>().ok()).unwrap_or(now);
        let fetched = row.get::<_, Option<i64>>(4)?.unwrap_or(0) != 0;
        imported_messages += tx.execute(
            "INSERT INTO message (tag, from_peer, to_peer, text, sent_at, expires_at, state, waiting, handed, route, offered_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?7, ?9, ?10)",
            params![
                random::message_tag(),
                text(row, 0)?.unwrap_or_default(),
                text(row, 1)?.unwrap_or_default(),
                text(row, 2)?.unwrap_or_default(),
                sent_at.as_millis(),
                now.plus(EXPIRY_OF_IMPORTED).as_millis(),
                i64::from(fetched),
                i64::from(!fetched),
                fetched.then_some("poll"),
                fetched.then_some(sent_at.as_millis())
            ],
        )?;
    }
    tracing::info!(
        peers = imported_peers,
        messages = imported_messages,
        "copied the legacy database: {imported_peers} peers, {imported_messages} messages"
    );
    Ok(())
}

/// A text, also one that is no valid UTF-8: what was cast may have been any bytes.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(row.get_ref(column)?.as_bytes_or_null()?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

/// The bytes of a new legacy database.
pub(super) fn image() -> rusqlite::Result<Vec<u8>> {
    let memory = Connection::open_in_memory()?;
    LEGACY_TABLES.iter().try_for_each(|(_, sql, _)| memory.execute_batch(sql))?;
    Ok(memory.serialize("main")?.to_vec())
}

/// Whether the legacy tables exist.
pub(super) fn is_there(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(has(connection, "peers", "last_seen")? && has(connection, "messages", "delivered")?)
}

pub(super) fn has_all(connection: &Connection, table: &str, columns: &[&str]) -> rusqlite::Result<bool> {
    columns.iter().try_fold(true, |all, column| Ok(all && has(connection, table, column)?))
}

/// Whether a legacy table has the columns that the legacy broker gives it. Of an earlier one, whose rows look different, those that
/// are read here are enough.
pub(super) fn fits(
    connection: &Connection,
    (table, sql, columns): (&str, &str, &[&str]),
    is_usual: bool,
) -> rusqlite::Result<bool> {
    if !is_usual {
        return has_all(connection, table, columns);
    }
    let names = |connection: &Connection| -> rusqlite::Result<Vec<String>> {
        connection.prepare("SELECT name FROM pragma_table_info(?1)")?.query_map([table], |row| row.get(0))?.collect()
    };
    let usual = Connection::open_in_memory()?;
    usual.execute_batch(sql)?;
    Ok(names(connection)? == names(&usual)?)
}

fn has(connection: &Connection, table: &str, column: &str) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)", params![table, column], |row| {
        row.get(0)
    })
}
