//! Looking at a database without changing it, also while a broker is at work on it.

use super::{
    damage::is_damage,
    open::SCHEMA,
    sqlite_file::{reader, side_files},
};
use crate::wire::{DatabaseReport, DatabaseState, Timestamp};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use rustix::fs::{Access, access};
use std::{
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::PermissionsExt,
    },
    path::{Path, PathBuf},
};

/// How many faults are listed: the first ones tell what there is to tell.
const MOST_PROBLEMS: u32 = 5;
/// Among how many of the last messages the newest is looked for: a clock that was set back mixes their order.
const LAST_MESSAGES: u32 = 1_000;

/// The facts read from a database.
struct Found {
    schema: u64,
    newest: Option<i64>,
    /// SQLite's complaints.
    faults: Vec<String>,
}

/// Looks at the database at `path`. The file is left as it is to the byte, and nothing is left beside it.
pub fn check(path: &Path) -> DatabaseReport {
    let known = u64::try_from(SCHEMA).unwrap_or(u64::MAX);
    let mut report = DatabaseReport {
        path: path.to_string_lossy().into_owned(),
        state: DatabaseState::Sound,
        schema: None,
        known_schema: known,
        bytes: side_files(path).iter().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum(),
        mode: None,
        newest_message_at: None,
        problems: Vec::new(),
    };
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.problems.extend(unwritable(&standing_folder(path)));
            report.state = if report.problems.is_empty() { DatabaseState::Missing } else { DatabaseState::NotWritable };
            return report;
        }
        Err(error) => return failed(report, DatabaseState::Unreadable, error.to_string()),
    };
    report.mode = Some(format!("{:04o}", meta.permissions().mode() & 0o7777));
    if !meta.is_file() {
        return failed(report, DatabaseState::Unreadable, "it is no file".to_owned());
    }
    report.problems.extend(unwritable(path).or_else(|| unwritable(&standing_folder(path))));
    let writable = report.problems.is_empty();
    // SQLite makes side files to read beside a writer. With none at work it need not, and where it may not it cannot.
    let quiet = !writable || !written_to(path);
    let mut found = read(path, quiet);
    if quiet && !matches!(&found, Ok(found) if found.faults.is_empty()) && written_to(path) {
        found = read(path, false); // a broker has started meanwhile
    }
    match found {
        Ok(found) => {
            report.schema = Some(found.schema);
            report.newest_message_at = found.newest.map(Timestamp::from_millis);
            if found.schema > known {
                report.state = DatabaseState::TooNew;
                report.problems.push(format!("its schema is {}, this version knows up to {known}", found.schema));
            } else if !found.faults.is_empty() {
                report.state = DatabaseState::Damaged;
                report.problems.extend(found.faults);
            } else if !writable {
                report.state = DatabaseState::NotWritable;
            }
            report
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

/// Whether the log of a writer lies beside the database.
fn written_to(path: &Path) -> bool {
    side_files(path)[1].metadata().is_ok_and(|meta| meta.len() > 0)
}

fn read(path: &Path, quiet: bool) -> rusqlite::Result<Found> {
    if path.metadata().is_ok_and(|meta| meta.len() == 0) {
        return Ok(Found { schema: 0, newest: None, faults: Vec::new() }); // the broker makes one of it
    }
    let connection = if quiet { undisturbed(path)? } else { reader(path)? };
    let schema: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let schema = u64::try_from(schema).unwrap_or(u64::MAX);
    let mut faults = Vec::new();
    connection.pragma(None, "quick_check", MOST_PROBLEMS, |row| {
        faults.push(row.get::<_, String>(0)?);
        Ok(())
    })?;
    faults.retain(|fault| fault != "ok");
    let newest = if schema > 0 && faults.is_empty() { newest(&connection)? } else { None };
    Ok(Found { schema, newest, faults })
}

/// A connection to a file that nobody writes: no locks, and no side files.
fn undisturbed(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = b"file:".to_vec();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | b'?' | b'#' => uri.extend(format!("%{byte:02X}").bytes()),
            byte => uri.push(*byte),
        }
    }
    uri.extend(b"?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(PathBuf::from(OsString::from_vec(uri)), flags)
}

fn newest(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let has_messages = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'message'";
    if connection.query_row(has_messages, [], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    let sql = "SELECT max(sent_at) FROM (SELECT sent_at FROM message ORDER BY seq DESC LIMIT ?1)";
    connection.query_row(sql, [LAST_MESSAGES], |row| row.get(0))
}

/// Why `path` cannot be written by this user, if so.
fn unwritable(path: &Path) -> Option<String> {
    access(path, Access::WRITE_OK).err().map(|error| format!("{} cannot be written: {}", path.display(), io::Error::from(error)))
}

/// The folder of `path`, or the nearest one above it that is there: the broker makes the rest.
fn standing_folder(path: &Path) -> PathBuf {
    path.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("/")).to_owned()
}
