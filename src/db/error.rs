use std::sync::Arc;

/// Why the database could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement failed.
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The transaction that this job shared could not be committed.
    #[error("committing to the database: {0}")]
    Commit(Arc<rusqlite::Error>),
    /// The writer has ended: the broker is stopping.
    #[error("the database is closed")]
    Closed,
}

impl Error {
    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        let error = match self {
            Self::Sqlite(error) => error,
            Self::Commit(error) => error,
            Self::Closed => return false,
        };
        error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
    }
}

/// Results of the database.
pub type Result<T, E = Error> = std::result::Result<T, E>;
