//! The files of a database, and connections to it.

use rusqlite::{Connection, OpenFlags, config::DbConfig};
use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a connection waits for another one's lock: a checkpoint on a slow disk and then some.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Each connection's page cache in KiB: the hot pages of a mailbox are few, and the kernel caches the rest.
const CACHE_KIB: i64 = 1_024;
/// A WAL that grew past this during a burst is cut back at the next checkpoint, in bytes.
const WAL_LIMIT: i64 = 16 * 1024 * 1024;

/// `path` with `suffix` added to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The write-ahead log of the database at `path`.
pub(super) fn wal(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

/// What SQLite puts beside the database.
pub(super) fn side_files(path: &Path) -> [PathBuf; 3] {
    [wal(path), beside(path, "-shm"), journal(path)]
}

/// The rollback journal of the database at `path`. Not empty, it is what a process left that died in the middle of a change.
pub(super) fn journal(path: &Path) -> PathBuf {
    beside(path, "-journal")
}

/// The size of the database with its side files, in bytes.
pub(super) fn size(path: &Path) -> u64 {
    side_files(path)
        .iter()
        .map(PathBuf::as_path)
        .chain([path])
        .filter_map(|file| file.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}

pub(super) fn is_filled(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.len() > 0)
}

/// The file that `path` means, behind all links, whether it is there or not: SQLite keeps its side files beside that one.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs::read_link(path) {
        Ok(target) => resolve(&folder.join(target)),
        Err(_) => Ok(fs::canonicalize(folder)?.join(path.file_name().unwrap_or_default())),
    }
}

/// Writes to disk which files the folder of `path` has.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// A connection that cannot write.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// A connection that reads what it can of a damaged database: with this setting SQLite opens even a file that ends before its time.
/// Nothing else may be asked first.
pub(super) fn lenient_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "writable_schema", true)?;
    Ok(connection)
}

/// A connection that may write. Until [`DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE`] is taken back it leaves the log where it is,
/// also as the last one: a damaged database stays as it was found.
pub(super) fn writer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

fn open(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(connection)
}

/// A connection to a file that nobody writes: no locks, no side files, and none of them read.
pub(super) fn undisturbed(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = b"file:".to_vec();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | b'?' | b'#' => uri.extend(format!("%{byte:02X}").bytes()),
            byte => uri.push(*byte),
        }
    }
    uri.extend(b"?immutable=1");
    open(Path::new(&OsString::from_vec(uri)), OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)
}
