//! Inspects a database without changing it, even while a broker uses it.

use super::{
    connect::{in_the_way, is_filled, journal, reader, share, size, undisturbed, wal},
    damage::faults,
    error::is_damage,
    kind::{self, FileKind},
    schema::{self, SCHEMA},
};
use crate::{
    platform::files,
    wire::{DatabaseReport, DatabaseState, Timestamp},
};
use rusqlite::{Connection, OptionalExtension};
use rustix::fs::{Access, access};
use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The newest message is sought among this many of the last ones: a clock that was set back mixes their order.
const LAST_MESSAGES: u32 = 1_000;

/// The facts read from a database.
struct Found {
    kind: FileKind,
    schema: i64,
    newest: Option<i64>,
    /// The faults that [`faults`] found.
    faults: Vec<String>,
}

/// Inspects the database at `path`. Changes no byte of the file and leaves no file beside it.
pub fn check(path: &Path) -> DatabaseReport {
    let path = &files::resolve(path).unwrap_or_else(|_| path.to_owned());
    let known = SCHEMA.unsigned_abs();
    let mut report = DatabaseReport {
        path: path.to_string_lossy().into_owned(),
        state: DatabaseState::Sound,
        schema: None,
        known_schema: known,
        bytes: size(path),
        mode: None,
        newest_message_at: None,
        problems: Vec::new(),
    };
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.problems.extend(unwritable(&standing_folder(path)).or_else(|| in_the_way(path)));
            report.state = if report.problems.is_empty() { DatabaseState::Missing } else { DatabaseState::NotWritable };
            return report;
        }
        Err(error) => return failed(report, DatabaseState::Unreadable, error.to_string()),
    };
    report.mode = Some(format!("{:04o}", meta.permissions().mode() & 0o7777));
    if !meta.is_file() {
        return failed(report, DatabaseState::Unreadable, "it is no file".to_owned());
    }
    let problem = unwritable(path).or_else(|| unwritable(&standing_folder(path))).or_else(|| in_the_way(path));
    report.problems.extend(problem);
    let writable = report.problems.is_empty();
    if writable && let Err(error) = share(path) {
        return failed(report, DatabaseState::NotShared, error.to_string());
    }
    // To read beside a writer, SQLite creates side files. Without a writer it needs none; in a read-only folder it cannot.
    let quiet = !writable || !is_filled(&wal(path));
    let mut found = read(path, quiet);
    if quiet && !matches!(&found, Ok(found) if found.faults.is_empty()) && is_filled(&wal(path)) {
        found = read(path, false); // a broker has started in the meantime
    }
    match found {
        Ok(found) => {
            report.schema = u64::try_from(found.schema).ok();
            report.newest_message_at = found.newest.map(Timestamp::from_millis);
            let (state, problems) = match found.kind {
                FileKind::Foreign => (DatabaseState::Foreign, vec!["it is no database of claude-peers".to_owned()]),
                FileKind::Newer(schema) => {
                    (DatabaseState::TooNew, vec![format!("its schema is {schema}, this version knows up to {known}")])
                }
                FileKind::Ours if !found.faults.is_empty() => (DatabaseState::Damaged, found.faults),
                FileKind::Ours if !writable => (DatabaseState::NotWritable, Vec::new()),
                FileKind::Ours if is_filled(&journal(path)) => {
                    (DatabaseState::Sound, vec!["a change was left half done; it is undone at the next start".to_owned()])
                }
                FileKind::Ours => (DatabaseState::Sound, Vec::new()),
            };
            report.state = state;
            report.problems.extend(problems);
            report
        }
        Err(error) if is_damage(&error) && kind::has_marks(path).is_ok_and(|ours| !ours) => {
            failed(report, DatabaseState::Foreign, "it is no database of claude-peers".to_owned())
        }
        Err(error) if is_damage(&error) => failed(report, DatabaseState::Damaged, error.to_string()),
        Err(error) => failed(report, DatabaseState::Unreadable, error.to_string()),
    }
}

fn failed(mut report: DatabaseReport, state: DatabaseState, problem: String) -> DatabaseReport {
    report.state = state;
    report.problems.push(problem);
    report
}

fn read(path: &Path, quiet: bool) -> rusqlite::Result<Found> {
    let mut found = Found { kind: FileKind::Ours, schema: 0, newest: None, faults: Vec::new() };
    if !is_filled(path) {
        return Ok(found); // the broker turns it into a database
    }
    let connection = if quiet { undisturbed(path)? } else { reader(path)? };
    found.schema = schema::version(&connection)?;
    // An unfinished change may look like damage; the next start undoes it.
    let is_settled = !is_filled(&journal(path));
    found.kind = kind::look(path, &connection)?;
    if found.kind == FileKind::Ours && is_settled {
        found.faults = faults(&connection)?;
        if found.schema > 0 && found.faults.is_empty() {
            found.newest = newest(&connection)?;
        }
    }
    Ok(found)
}

fn newest(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let has_messages = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'message'";
    if connection.query_row(has_messages, [], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    let sql = "SELECT max(sent_at) FROM (SELECT sent_at FROM message ORDER BY seq DESC LIMIT ?1)";
    connection.query_row(sql, [LAST_MESSAGES], |row| row.get(0))
}

/// The reason why this user cannot write `path`, if there is one.
fn unwritable(path: &Path) -> Option<String> {
    access(path, Access::WRITE_OK).err().map(|error| format!("{} cannot be written: {}", path.display(), io::Error::from(error)))
}

/// The nearest folder above `path` that exists; the broker creates the missing ones.
fn standing_folder(path: &Path) -> PathBuf {
    path.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("/")).to_owned()
}
