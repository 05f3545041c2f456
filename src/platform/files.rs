//! Files that others may have put there. Opening never blocks, the size read is limited, and links are followed to their end.

use rustix::{
    fs::{Mode, OFlags},
    process::geteuid,
};
use std::{
    fs::{self, DirBuilder, File, Metadata},
    io::{self, ErrorKind, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

/// The content of a regular file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_whole(&open(path)?, limit)
}

/// The same, but only if this user owns the file.
pub fn read_own(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_whole(&open_own(path)?, limit)
}

/// Opens a regular file that this user owns.
pub fn open_own(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    match is_own(&file.metadata()?) {
        true => Ok(file),
        false => Err(io::Error::new(ErrorKind::PermissionDenied, "it belongs to another user")),
    }
}

/// Opens a regular file for reading.
pub fn open(path: &Path) -> io::Result<File> {
    // Nonblocking, because opening a named pipe would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

fn read_whole(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content)?;
    match content.len() as u64 > limit {
        true => Err(io::Error::new(ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes"))),
        false => Ok(content),
    }
}

/// Creates a folder that only this user can enter, and those that it lies in.
pub fn create_private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Removes a file, if it is there.
pub fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Follows all links of `path` to the file itself. Neither it nor its folder need exist, but the folder that a link names must.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        found => return found,
    }
    let Some((folder, name)) = path.parent().zip(path.file_name()) else { return Err(ErrorKind::NotFound.into()) };
    match fs::read_link(path).map(|target| folder.join(target)) {
        Ok(target) if target.parent().is_some_and(Path::exists) => resolve(&target),
        Ok(target) => {
            let what = format!("{} is a link to {}, whose folder is missing", path.display(), target.display());
            Err(io::Error::new(ErrorKind::NotFound, what))
        }
        Err(_) => Ok(resolve(folder)?.join(name)),
    }
}

/// Whether this user owns the file at `path`. For a link, the owner of the link itself counts.
pub fn owns(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| is_own(&meta))
}

/// Git's rule: under `sudo`, files of the user who called it count too.
fn is_own(meta: &Metadata) -> bool {
    let caller = || std::env::var("SUDO_UID").ok()?.parse().ok();
    let me = geteuid();
    meta.uid() == me.as_raw() || me.is_root() && caller() == Some(meta.uid())
}
