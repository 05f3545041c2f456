//! The lock that keeps a second broker off a database, even if it opens the file under another path.

use super::error::OpenError;
use rustix::process::{Flock, FlockType, fcntl_getlk};
use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

/// The byte that a broker locks. It follows the bytes that SQLite itself locks; no database stores data there.
const OURS: i64 = 0x4000_0200;
/// The first byte and the length of the range in which every SQLite connection in WAL mode holds a lock.
const SHARED: (u64, u64) = (0x4000_0002, 510);

/// Reserves a database for this process. The lock is on the file itself and belongs to this descriptor. SQLite's locks belong to
/// the process, so neither they nor SQLite's descriptors affect it. Drop it after every connection: closing any descriptor of a
/// file releases the process's own locks on it.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Locks the file at `path`. Returns `None` if it does not exist and `make` is false.
    pub fn take(path: &Path, make: bool) -> Result<Option<Self>, OpenError> {
        let failed = |source| OpenError::File { path: path.to_owned(), source };
        loop {
            let file = OpenOptions::new().read(true).write(true).create(make).truncate(false).mode(0o600).open(path);
            let file = match file {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !make => return Ok(None),
                other => other.map_err(failed)?,
            };
            let meta = file.metadata().map_err(failed)?;
            if !meta.is_file() {
                return Err(failed(io::Error::other("it is no file")));
            }
            if !try_lock(&file).map_err(failed)? {
                return Err(OpenError::InUse { path: path.to_owned(), holder: holder(&file) });
            }
            // In the meantime another broker may have replaced the file with a salvaged database.
            if path.metadata().is_ok_and(|now| (now.dev(), now.ino()) == (meta.dev(), meta.ino())) {
                return Ok(Some(Self { _file: file }));
            }
        }
    }
}

/// Locks the byte for this open file; false if another open file holds it.
#[expect(unsafe_code, reason = "no safe crate that is used here locks for an open file instead of a process")]
fn try_lock(file: &File) -> io::Result<bool> {
    let (l_type, l_whence) = (libc::F_WRLCK as libc::c_short, libc::SEEK_SET as libc::c_short);
    let lock = libc::flock { l_type, l_whence, l_start: OURS, l_len: 1, l_pid: 0 };
    // SAFETY: the descriptor is open as long as `file` lives, and the kernel only reads `lock`.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// The process whose SQLite locks the file, if the kernel can tell.
fn holder(file: &File) -> String {
    let wish = Flock { start: SHARED.0, length: SHARED.1, ..Flock::from(FlockType::WriteLock) };
    let pid = fcntl_getlk(file, &wish).ok().flatten().and_then(|lock| lock.pid);
    pid.map_or_else(|| "unknown".to_owned(), |pid| pid.as_raw_pid().to_string())
}
