//! Checks that the files of a database are still the ones that were opened. SQLite does not: it keeps writing to a file that was
//! removed, and reports success.

use super::connect::wal;
use rusqlite::Connection;
#[cfg(target_os = "linux")]
use rustix::{
    fs::{AtFlags, CWD, StatxFlags, makedev, statx},
    io::Errno,
};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// A file as last seen: device and inode, and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    file: (u64, u64),
    length: u64,
}

impl Seen {
    /// Does not ask for the file's times: since Linux 6.13, the first write after they were read updates them, and the next fsync has
    /// to store that.
    #[cfg(target_os = "linux")]
    fn now(path: &Path) -> io::Result<Self> {
        match statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::SIZE) {
            Ok(meta) => {
                let device = makedev(meta.stx_dev_major, meta.stx_dev_minor);
                Ok(Self { file: (device, meta.stx_ino), length: meta.stx_size })
            }
            Err(Errno::NOSYS) => Self::by_metadata(path), // a sandbox without that call
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn now(path: &Path) -> io::Result<Self> {
        Self::by_metadata(path)
    }

    fn by_metadata(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self { file: (meta.dev(), meta.ino()), length: meta.len() })
    }
}

/// The files of an open database.
#[derive(Debug)]
pub(super) struct Place {
    /// The path before links are followed: a link may later point elsewhere.
    path: PathBuf,
    wal: PathBuf,
    database: Seen,
    log: Seen,
    /// The size of a page in the log, in bytes.
    frame: u64,
}

impl Place {
    /// The files of `connection`, whose database is at `path`; `real` is that path with all links followed.
    pub fn of(connection: &Connection, path: &Path, real: &Path) -> io::Result<Self> {
        let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0)).map_err(io::Error::other)?;
        let (wal, frame) = (wal(real), page.unsigned_abs() + 24);
        Ok(Self { path: path.to_owned(), database: Seen::now(path)?, log: Seen::now(&wal)?, wal, frame })
    }

    /// The path of the database, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compares the files with those last seen: neither may have been replaced, or be shorter than the committed data. This takes
    /// a few microseconds.
    pub fn check(&mut self, connection: &Connection) -> Result<(), String> {
        let database = seen(&self.path)?;
        if database.file != self.database.file || database.length < self.database.length {
            return Err(changed(&self.path));
        }
        let log = seen(&self.wal).and_then(|log| if log.file == self.log.file { Ok(log) } else { Err(changed(&self.wal)) });
        let log = log.inspect_err(|_| keep(connection))?;
        // A checkpoint of any process may have cut it back.
        if log.length < self.log.length && log.length < self.committed(connection)? {
            return Err(changed(&self.wal));
        }
        (self.database, self.log) = (database, log);
        Ok(())
    }

    /// The least length of the log, from SQLite's count of frames in memory.
    fn committed(&self, connection: &Connection) -> Result<u64, String> {
        let frames: i64 = connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1)).map_err(|e| e.to_string())?;
        Ok(u64::try_from(frames).unwrap_or_default() * self.frame)
    }
}

/// Saves a removed log, which is still open here, by writing its contents into the database.
fn keep(connection: &Connection) {
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        tracing::error!(%error, "the removed write-ahead log could not be saved: {error}");
    }
}

fn seen(path: &Path) -> Result<Seen, String> {
    Seen::now(path).map_err(|error| format!("{} ({error})", changed(path)))
}

fn changed(path: &Path) -> String {
    format!("{} is not the one that was opened", path.display())
}

#[cfg(test)]
mod tests {
    use super::Seen;

    #[test]
    fn both_ways_see_the_same() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "text").unwrap();
        let seen = Seen::now(file.path()).unwrap();
        assert_eq!((seen, seen.length), (Seen::by_metadata(file.path()).unwrap(), 4));
    }
}
