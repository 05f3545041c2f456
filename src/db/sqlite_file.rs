//! The file of the database, and connections that only read it.

use rusqlite::{Connection, OpenFlags};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a connection waits for another one's lock: a checkpoint on a slow disk and then some.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Each connection's page cache in KiB: the hot pages of a mailbox are few, and the kernel caches the rest.
pub(super) const CACHE_KIB: i64 = 1_024;
/// The database file and what SQLite puts beside it.
pub(super) fn side_files(path: &Path) -> [PathBuf; 3] {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    [path.to_owned(), beside("-wal"), beside("-shm")]
}

/// A connection that cannot write.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(connection)
}
