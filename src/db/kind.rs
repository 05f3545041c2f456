//! Decides whether a file is a claude-peers database. Files of other programs and of newer versions stay untouched.

use super::{
    connect::{is_filled, reader, wal},
    error::{OpenError, damage, is_damage},
    legacy, roots,
    schema::{self, SCHEMA},
};
use rusqlite::{Connection, ErrorCode};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Every claude-peers database contains one of these texts. They identify it when SQLite cannot read its schema.
const MARKS: [&[u8]; 3] = [b"CREATE TABLE peer (\n", b"INDEX message_waiting ON message", b"CREATE TABLE peers ("];
/// A version from this number on means damage.
const FARTHEST: i64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// Our database, the legacy broker's, or an empty file that becomes one.
    Ours,
    /// A newer version of claude-peers wrote it; this is its schema version.
    Newer(i64),
    /// A file of another program.
    Foreign,
}

/// Refuses files that the broker must not touch.
///
/// # Errors
/// Also for a damaged claude-peers database.
pub(super) fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let refused = |source| OpenError::Sqlite { path: path.to_owned(), source };
    if !is_filled(path) {
        return Ok(());
    }
    let seen = match reader(path).and_then(|connection| look(path, &connection)) {
        // Only a writer can undo an unfinished change.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {
            Connection::open(path).and_then(|connection| look(path, &connection))
        }
        seen => seen,
    };
    match seen {
        Ok(FileKind::Ours) => Ok(()),
        Ok(FileKind::Newer(found)) => Err(OpenError::TooNew { path: path.to_owned(), found, known: SCHEMA }),
        Ok(FileKind::Foreign) => Err(OpenError::Foreign { path: path.to_owned() }),
        Err(error) if is_damage(&error) => match has_marks(path) {
            Ok(true) => Err(refused(error)),
            Ok(false) => Err(OpenError::Foreign { path: path.to_owned() }),
            Err(source) => Err(OpenError::File { path: path.to_owned(), source }),
        },
        Err(error) => Err(refused(error)),
    }
}

/// The kind of an undamaged database, whose file is at `path`.
///
/// # Errors
/// SQLite's error, also if the database is damaged.
pub(super) fn look(path: &Path, connection: &Connection) -> rusqlite::Result<FileKind> {
    let version = schema::version(connection)?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let things: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_ours = schema::is_ours(connection)? || legacy::is_there(connection)?;
    let has_our_marks = || has_marks(path).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()));
    let has_rows = || match roots::find(path, &BTreeMap::new()) {
        Ok(found) => Ok(found.has_rows()),
        Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(error.into())),
    };
    Ok(match version {
        _ if things == 0 && (version > 0 || has_rows()?) => return Err(damage("its schema is empty".to_owned())),
        _ if !is_ours && things > 0 && schema::is_part(connection)? && has_our_marks()? => {
            return Err(damage("its schema lacks tables".to_owned()));
        }
        _ if !is_ours && (things, version, application) != (0, 0, 0) => FileKind::Foreign,
        ..0 | FARTHEST.. => return Err(damage(format!("its version is {version}"))),
        newer if newer > SCHEMA => FileKind::Newer(newer),
        _ => FileKind::Ours,
    })
}

/// Whether the file or its log contains the marks of our schema, or is blank because all its contents were lost, or has lost no more
/// than its first page: then it has our messages, or tables where a new database has them.
pub(super) fn has_marks(path: &Path) -> io::Result<bool> {
    Ok(scan(path)? || (is_filled(&wal(path)) && scan(&wal(path))?) || roots::has_those_of_a_new_one(path)? || has_messages(path)?)
}

/// Whether the pages show rows like those of our messages.
fn has_messages(path: &Path) -> io::Result<bool> {
    Ok(roots::find(path, &BTreeMap::new())?.shown("message", &BTreeMap::new()).is_some())
}

fn scan(path: &Path) -> io::Result<bool> {
    let (mut file, mut window, mut is_blank) = (File::open(path)?, Vec::new(), true);
    loop {
        // Keeps the end of the previous part: a mark may span both.
        window.drain(..window.len().saturating_sub(64));
        if file.by_ref().take(1 << 20).read_to_end(&mut window)? == 0 {
            return Ok(is_blank);
        }
        is_blank &= window.iter().all(|byte| *byte == 0);
        if MARKS.iter().any(|mark| window.windows(mark.len()).any(|part| part == *mark)) {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::db::{Extent, open};
    use rusqlite::Connection;
    use std::fs;

    /// The first version had tables and indexes in other places than a new database has.
    #[test]
    fn no_number_of_entries_makes_the_first_version_foreign() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        let first = concat!(include_str!("migrations/0001-mailboxes.sql"), "; PRAGMA user_version = 1");
        Connection::open(&path).unwrap().execute_batch(first).unwrap();
        let sound = fs::read(&path).unwrap();
        for entries in 0..sound[104] {
            fs::write(&path, [&sound[..104], &[entries], &sound[105..]].concat()).unwrap();
            let opened = open(&path, Extent::Whole).unwrap();
            assert_eq!(opened.notices.len(), 1, "{entries} entries: {:?}", opened.notices);
            opened.store.close();
        }
    }
}
