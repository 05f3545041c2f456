//! The link's files: keys, certificates and lists. Only the user can read them, and a kill leaves the old content or the new.

use super::report::Context;
use crate::{
    platform::files,
    wire::{self, Code, Error},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

/// The largest file that is read.
const LARGEST: u64 = 8 * 1024 * 1024;

/// Creates a folder, and those that it lies in.
pub(super) fn create_folder(folder: &Path) -> wire::Result<()> {
    files::create_private_folder(folder).local(format_args!("creating {}", folder.display()))
}

/// Puts `content` in the place of what the file held.
pub(super) fn write(file: &Path, content: &[u8]) -> wire::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let replace = || {
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        new.write_all(content)?;
        new.as_file().sync_all()?;
        new.persist(file)?;
        fs::File::open(folder)?.sync_all()
    };
    replace().local(format_args!("writing {}", file.display()))
}

pub(super) fn read(file: &Path) -> wire::Result<Vec<u8>> {
    files::read_own(file, LARGEST).local(format_args!("reading {}", file.display()))
}

pub(super) fn write_json(file: &Path, value: &impl Serialize) -> wire::Result<()> {
    write(file, &serde_json::to_vec_pretty(value).local(format_args!("writing {}", file.display()))?)
}

/// What the file holds; none if there is no such file.
pub(super) fn read_json<T: DeserializeOwned>(file: &Path) -> wire::Result<Option<T>> {
    if fs::metadata(file).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(None);
    }
    let read = serde_json::from_slice(&read(file)?).map(Some);
    read.context(Code::InvalidRequest, format_args!("{} cannot be read", file.display()))
}

/// A secret. Refuses a file that others can read.
pub(super) fn read_secret(file: &Path) -> wire::Result<String> {
    let mode = fs::metadata(file).local(format_args!("reading {}", file.display()))?.mode();
    if mode & 0o077 != 0 {
        let what = format!("others can read the key {}", file.display());
        return Err(Error::new(Code::Forbidden, what).help(format!("`chmod 600 {}`", file.display())));
    }
    let text = String::from_utf8(read(file)?);
    let text = text.map_err(|_| Error::new(Code::InvalidRequest, format!("{} holds no key", file.display())))?;
    Ok(text.trim().to_owned())
}
