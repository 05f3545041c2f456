use rusqlite::{ErrorCode, ffi};
use std::{io, path::PathBuf, sync::Arc};

/// Why a read or write failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement failed.
    #[error("database: {0}")]
    Sqlite(rusqlite::Error),
    /// The transaction that this job shared could not be committed.
    #[error("committing to the database: {0}")]
    Commit(Arc<rusqlite::Error>),
    /// Another job in the same transaction failed halfway.
    #[error("another change in the same transaction failed, so this one was not stored")]
    Undone,
    /// The files are not the ones that were opened, so it is unknown whether the change is kept.
    #[error("the database was moved, replaced or cut while the broker was using it: {0}")]
    Moved(String),
    /// Another process kept the database's lock for too long.
    #[error("another process holds the lock of the database {}", .0.display())]
    Locked(PathBuf),
    /// The search index cannot be used; the messages are untouched.
    #[error("the search index {path} cannot be used: {why}")]
    Index {
        /// Its file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The writer has ended: the broker is stopping.
    #[error("the database is closed")]
    Closed,
}

impl Error {
    fn cause(&self) -> Option<&rusqlite::Error> {
        match self {
            Self::Sqlite(error) => Some(error),
            Self::Commit(error) => Some(error),
            Self::Undone | Self::Moved(_) | Self::Locked(_) | Self::Index { .. } | Self::Closed => None,
        }
    }

    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        self.cause().and_then(rusqlite::Error::sqlite_error_code) == Some(rusqlite::ErrorCode::DiskFull)
    }

    /// Whether the database is damaged.
    pub fn is_damage(&self) -> bool {
        self.cause().is_some_and(is_damage)
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match Fault::of(&error) {
            Some(Fault::Moved(file)) => Self::Moved(file),
            _ => Self::Sqlite(error),
        }
    }
}

/// Results of the database.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the broker must close its database and restart.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// Its files are not the ones that were opened.
    #[error("the database was moved, replaced or cut while the broker was using it: {0}; nothing more is accepted")]
    Moved(String),
    /// A statement found damage.
    #[error("the database is damaged: {0}; it is repaired before the next start")]
    Damaged(String),
}

impl Fault {
    /// The fault behind a statement's error, if there is one.
    pub(super) fn of(error: &rusqlite::Error) -> Option<Self> {
        match error.sqlite_error() {
            Some(code) if code.extended_code == ffi::SQLITE_IOERR_SHORT_READ => {
                Some(Self::Moved("a file ends where committed data was".to_owned()))
            }
            // A damaged length asks for more memory than SQLite gives. If it was not damage, the next start finds none.
            Some(code) if code.code == ErrorCode::OutOfMemory => Some(Self::Damaged(error.to_string())),
            _ => is_damage(error).then(|| Self::Damaged(error.to_string())),
        }
    }
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its folder or file cannot be used.
    #[error("opening database {path}: {source}; check that the folder exists and is writable, or set CLAUDE_PEERS_DB")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file beside it cannot be used.
    #[error("opening database {path}: {why}; correct the owner and the mode of what is beside it, or set CLAUDE_PEERS_DB")]
    InTheWay {
        /// The database.
        path: PathBuf,
        /// The file, and the reason.
        why: String,
    },
    /// Its file system gives no shared memory, which SQLite's write-ahead log needs.
    #[error("database {path}: its file system has no shared memory ({source}); set CLAUDE_PEERS_DB to a file on a local disk")]
    NotShared {
        /// The database.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another broker is using it.
    #[error("database {path} is in use by another claude-peersd (process {holder}); stop that one, or set CLAUDE_PEERS_DB")]
    InUse {
        /// The database.
        path: PathBuf,
        /// The process that holds it, as far as known.
        holder: String,
    },
    /// The file belongs to another program.
    #[error("{path} is no database of claude-peers and is left untouched; move it away, or set CLAUDE_PEERS_DB to another file")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of claude-peers wrote it.
    #[error(
        "database {path} was written by a newer claude-peers (schema {found}, this version knows up to {known}) and is left \
         untouched; upgrade claude-peers, or set CLAUDE_PEERS_DB to another file"
    )]
    TooNew {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest this build knows.
        known: i64,
    },
    /// SQLite or a migration failed.
    #[error("opening database {path}: {source}")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// The database is damaged, and its readable rows could not be written to a new one.
    #[error("database {path} is damaged ({damage}) and could not be salvaged: {source}; it is left as it was, start again")]
    Salvage {
        /// The database.
        path: PathBuf,
        /// Its first fault.
        damage: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// SQLite's errors that damage can cause although SQLite does not call it damage.
const SIGNS: [&str; 5] = ["no such table", "no such column", "has no column", "duplicate column name", "unsupported file format"];

/// Whether the file itself is at fault: SQLite reports damage, a value does not fit its column, or the schema is incomplete.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use ErrorCode::{DatabaseCorrupt, NotADatabase, TooBig, Unknown};
    use rusqlite::Error as E;
    match error {
        // Our statements are right, so the schema is incomplete, or its version is wrong.
        E::SqlInputError { .. } => true,
        E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..) | E::InvalidColumnType(..) | E::Utf8Error(..) => true,
        other => match other.sqlite_error_code() {
            // No text of ours is too long for SQLite, but a damaged length may be.
            Some(DatabaseCorrupt | NotADatabase | TooBig) => true,
            Some(Unknown) => SIGNS.iter().any(|sign| other.to_string().contains(sign)),
            _ => false,
        },
    }
}

/// Whether the system is at fault, not the file, so that another attempt may succeed. A file that ends too early is at fault itself.
pub(super) fn is_passing(error: &rusqlite::Error) -> bool {
    use ErrorCode::{CannotOpen, DatabaseBusy, DiskFull, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure};
    let code = error.sqlite_error();
    code.is_some_and(|code| {
        let is_of_system = matches!(
            code.code,
            CannotOpen | DatabaseBusy | DiskFull | OutOfMemory | PermissionDenied | ReadOnly | SystemIoFailure
        );
        is_of_system && code.extended_code != ffi::SQLITE_IOERR_SHORT_READ
    })
}

/// An error for damage that SQLite does not detect.
pub(super) fn damage(what: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_memory_ends_in_a_check_of_the_file() {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_NOMEM), None);
        assert!(matches!(Fault::of(&error), Some(Fault::Damaged(_))));
        assert!(!is_damage(&error), "the check decides");
    }
}
