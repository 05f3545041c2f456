//! A damaged database is set aside under a dated name, never deleted; what can be read of it is copied into a fresh one.

use super::sqlite_file::side_files;
use crate::platform::clock;
use rusqlite::{Connection, ErrorCode, OpenFlags, types::Value};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The tables to save, with the columns by which their rows are walked from both ends.
const TABLES: [&str; 3] = ["peer", "session", "message"];

/// Whether SQLite says that the file itself is at fault.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Touches what the broker needs first, so that damage shows while it can still be set aside. Costs what is under way, not
/// what is stored.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    for sql in [
        "SELECT count(name) FROM peer",
        "SELECT count(peer) FROM session",
        "SELECT count(text) FROM message WHERE waiting = 1",
        "SELECT count(text) FROM (SELECT text FROM message ORDER BY seq DESC LIMIT 100)",
    ] {
        connection.query_row(sql, [], |row| row.get::<_, i64>(0))?;
    }
    Ok(())
}

/// Renames the database and its side files to `NAME.damaged-DATE`.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut aside = path.as_os_str().to_owned();
    let date: String = clock::now().to_string().chars().filter(char::is_ascii_alphanumeric).collect();
    aside.push(format!(".damaged-{date}"));
    let aside = PathBuf::from(aside);
    for (from, to) in side_files(path).iter().zip(side_files(&aside)) {
        match fs::rename(from, to) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(aside)
}

/// Copies what can be read of the database set aside into `fresh`; says in words what was saved.
pub(super) fn salvage(aside: &Path, fresh: &Connection, cause: &rusqlite::Error) -> String {
    let saved = readable(aside)
        .map(|damaged| TABLES.map(|table| (table, copy(&damaged, fresh, table))))
        .map(|counts| counts.map(|(table, rows)| format!("{rows} of table {table}")).join(", "))
        .unwrap_or_else(|e| format!("nothing ({e})"));
    format!(
        "the database was damaged ({cause}) and has been set aside as {}; recovered rows: {saved}; messages that could not be \
         read are missing",
        aside.display()
    )
}

/// A connection that reads what it can: with this setting SQLite opens even a file that ends before its time.
fn readable(damaged: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(damaged, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "writable_schema", true)?;
    Ok(connection)
}

/// Reads rows from both ends until the damage stops it, and writes each into `fresh`; how many rows were saved.
fn copy(damaged: &Connection, fresh: &Connection, table: &str) -> usize {
    // One commit for all: a commit a row would take hours where there are a million.
    let Ok(together) = fresh.unchecked_transaction() else { return 0 };
    let saved =
        ["ASC", "DESC"].into_iter().map(|order| copy_from_one_end(damaged, fresh, table, order).unwrap_or_default()).sum();
    together.commit().map_or(0, |()| saved)
}

fn columns_of(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut columns = connection.prepare(&format!("SELECT name FROM pragma_table_info('{table}')"))?;
    columns.query_map([], |row| row.get(0))?.collect()
}

fn copy_from_one_end(damaged: &Connection, fresh: &Connection, table: &str, order: &str) -> rusqlite::Result<usize> {
    // One of an earlier version has fewer columns.
    let (mut columns, known) = (columns_of(damaged, table)?, columns_of(fresh, table)?);
    columns.retain(|column| known.contains(column));
    let names = columns.join(", ");
    let places = vec!["?"; columns.len()].join(", ");
    let mut write = fresh.prepare(&format!("INSERT OR IGNORE INTO {table} ({names}) VALUES ({places})"))?;
    let mut read = damaged.prepare(&format!("SELECT {names} FROM {table} ORDER BY rowid {order}"))?;
    let mut rows = read.query([])?;
    let mut saved = 0;
    // The first row that cannot be read ends this direction; the other one comes from the far side of the damage.
    while let Ok(Some(row)) = rows.next() {
        let values: rusqlite::Result<Vec<Value>> = (0..columns.len()).map(|column| row.get(column)).collect();
        let Ok(values) = values else { continue };
        saved += write.execute(rusqlite::params_from_iter(values)).unwrap_or_default();
    }
    Ok(saved)
}
