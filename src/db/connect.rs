//! The files of a database, and connections to it.

use crate::platform::files;
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use rustix::fs::{Access, access};
use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a connection waits for another one's lock: longer than a checkpoint takes on a slow disk.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The page cache of a connection that writes, in KiB. A mailbox has few hot pages, and the kernel caches the rest.
const CACHE_KIB: i64 = 1_024;
/// The page cache of a read-only connection. It is small because there are several, and each read needs different pages.
const READER_CACHE_KIB: i64 = 128;
/// A WAL that grew beyond this many bytes during a burst is cut back to them at the next checkpoint.
const WAL_LIMIT: i64 = 16 * 1024 * 1024;

/// `path` with `suffix` added to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(super) fn wal(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

/// The files that SQLite puts beside the database.
pub(super) fn side_files(path: &Path) -> [PathBuf; 3] {
    [wal(path), beside(path, "-shm"), journal(path)]
}

/// The rollback journal of the database at `path`. If it is not empty, a process died in the middle of a change.
pub(super) fn journal(path: &Path) -> PathBuf {
    beside(path, "-journal")
}

/// Removes a database and its side files, as far as they exist.
pub(super) fn remove_files(database: &Path) -> io::Result<()> {
    side_files(database).into_iter().chain([database.to_owned()]).try_for_each(|file| {
        files::remove(&file).map_err(|error| io::Error::new(error.kind(), format!("removing {}: {error}", file.display())))
    })
}

/// Why SQLite could not use a file beside the database at `path`, if that is so: it takes regular files that this user may read and
/// write, and follows no links.
pub(super) fn in_the_way(path: &Path) -> Option<String> {
    let why = |file: &Path| match fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(error.to_string()),
        Ok(meta) if !meta.is_file() => Some("it is no regular file; move it away".to_owned()),
        Ok(_) => access(file, Access::READ_OK | Access::WRITE_OK).err().map(|error| io::Error::from(error).to_string()),
    };
    side_files(path).iter().find_map(|file| Some(format!("{} cannot be read and written: {}", file.display(), why(file)?)))
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

/// Whether there is a file with contents. SQLite takes a file of one byte for an empty one.
pub(super) fn is_filled(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.len() > 1)
}

/// Fails if processes cannot share the file at `path` in memory, as on 9p: then SQLite cannot share the index of its log. Touches no
/// content.
#[expect(unsafe_code, reason = "no safe crate that is used here maps files")]
pub(super) fn share(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let (length, access) = (1, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: the kernel chooses free addresses, nothing reads or writes there, and no pointer to them is kept.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: these are the addresses from above.
    unsafe { libc::munmap(mapped, length) };
    Ok(())
}

/// Creates `folder` and those above it that are missing. On return their names are on disk: a synced file in a folder that a
/// power cut removes is lost.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<_> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(folder)?;
    missing.into_iter().try_for_each(sync_folder)
}

/// Fsyncs the folder of `path`, so that its list of files is on disk.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// A connection that cannot write.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// A connection that reads as much of a damaged database as it can: this setting makes SQLite open even a truncated file.
/// It must be the first statement of the connection.
pub(super) fn lenient_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "writable_schema", true)?;
    Ok(connection)
}

/// A connection that may write. While [`DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE`] is set, closing it leaves the log in place,
/// even if it is the last connection. So a damaged database stays as it was found.
pub(super) fn writer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // First of all: if the schema is damaged, the next statement already fails.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

fn open(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

/// A connection to a file that nobody writes. It takes no locks, and neither creates nor reads side files.
pub(super) fn undisturbed(path: &Path) -> rusqlite::Result<Connection> {
    let uri = uri(path, "immutable=1");
    open(Path::new(&uri), OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)
}

/// The file at `path` as SQLite's URI, with these parameters.
pub(super) fn uri(path: &Path, parameters: &str) -> String {
    let escaped = |byte: &u8| match byte {
        b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    let path: String = path.as_os_str().as_bytes().iter().map(escaped).collect();
    format!("file:{path}?{parameters}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db;

    #[test]
    fn a_damaged_schema_leaves_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        db::open(&path, db::Extent::Whole).unwrap().store.close();
        writer(&path).unwrap().execute_batch("INSERT INTO session VALUES ('session', 'peer', 1)").unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let tables: Vec<_> = (0..bytes.len() - 12).filter(|at| &bytes[*at..at + 12] == b"CREATE TABLE").collect();
        tables.into_iter().for_each(|at| bytes[at + 7] = b'K');
        fs::write(&path, &bytes).unwrap();
        let log = fs::read(wal(&path)).unwrap();

        assert!(writer(&path).is_err());

        assert!(!log.is_empty());
        assert_eq!(fs::read(wal(&path)).ok(), Some(log));
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}
