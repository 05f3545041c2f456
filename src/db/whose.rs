//! Whose a file is. One that is not ours, or that a newer version wrote, is left untouched to the byte.

use super::{
    connect::{is_filled, reader, wal},
    error::{OpenError, damage, is_damage},
    legacy,
    schema::{self, SCHEMA},
};
use rusqlite::{Connection, ErrorCode};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Words that every database of ours has somewhere: here the schema is looked for when SQLite cannot read it.
const MARKS: [&[u8]; 3] = [b"CREATE TABLE peer (\n", b"INDEX message_waiting ON message", b"CREATE TABLE peers ("];
/// No version will ever be that far: a higher number is damage.
const FARTHEST: i64 = 1_000;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// A database of ours, of the legacy broker's, or one to be.
    Ours,
    /// A newer version of ours wrote it: its schema version.
    Newer(i64),
    /// Another program's.
    Foreign,
}

/// Refuses what the broker must not touch. Damage is no reason.
pub(super) fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let refused = |source| OpenError::Sqlite { path: path.to_owned(), source };
    if !is_filled(path) {
        return Ok(());
    }
    let seen = match reader(path).and_then(|connection| look(&connection)) {
        // Only a writer can undo what was left half done.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {
            Connection::open(path).and_then(|connection| look(&connection))
        }
        seen => seen,
    };
    match seen {
        Ok(Whose::Ours) => Ok(()),
        Ok(Whose::Newer(found)) => Err(OpenError::TooNew { path: path.to_owned(), found, known: SCHEMA }),
        Ok(Whose::Foreign) => Err(OpenError::Foreign { path: path.to_owned() }),
        Err(error) if is_damage(&error) => match has_marks(path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(OpenError::Foreign { path: path.to_owned() }),
            Err(source) => Err(OpenError::File { path: path.to_owned(), source }),
        },
        Err(error) => Err(refused(error)),
    }
}

/// Whose an undamaged database is.
///
/// # Errors
/// Also that it is damaged.
pub(super) fn look(connection: &Connection) -> rusqlite::Result<Whose> {
    let version = schema::version(connection)?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let things: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_ours = schema::is_ours(connection)? || legacy::is_there(connection)?;
    Ok(match version {
        _ if !is_ours && (things, version, application) != (0, 0, 0) => Whose::Foreign,
        ..0 | FARTHEST.. => return Err(damage(format!("its version is {version}"))),
        newer if newer > SCHEMA => Whose::Newer(newer),
        _ => Whose::Ours,
    })
}

/// Whether the file or its log has the marks of our schema, or the file has lost all it had.
pub(super) fn has_marks(path: &Path) -> io::Result<bool> {
    Ok(scan(path)? || (is_filled(&wal(path)) && scan(&wal(path))?))
}

fn scan(path: &Path) -> io::Result<bool> {
    let (mut file, mut window, mut is_blank) = (File::open(path)?, Vec::new(), true);
    loop {
        // The end of what came before stays: a mark may lie across.
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
