//! The key by which the hub knows a machine: an nkey, as NATS uses them.

use super::error::local;
use crate::wire::{self, Code, Error};
use nkeys::KeyPair;
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Writes a new key into `file`, which nobody else can read, and prints its public part.
pub(super) fn make(file: &Path) -> wire::Result<()> {
    let failed = |error: &std::io::Error| local(&format!("writing {}", file.display()), error);
    let key = KeyPair::new_user();
    let seed = key.seed().map_err(|error| Error::new(Code::Internal, format!("making a key: {error}")))?;
    let mut created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(|error| failed(&error))?;
    let written = writeln!(created, "{seed}").and_then(|()| created.sync_all());
    written.and_then(|()| writeln!(std::io::stdout(), "{}", key.public_key())).map_err(|error| failed(&error))
}

/// The key in `file`. Refuses a file that others can read.
pub(super) fn read(file: &Path) -> wire::Result<String> {
    let failed = |error: &std::io::Error| {
        local(&format!("reading the key {}", file.display()), error).help("`claude-peers-link key FILE` makes one")
    };
    let mode = fs::metadata(file).map_err(|error| failed(&error))?.mode();
    if mode & 0o077 != 0 {
        let what = format!("others can read the key {}", file.display());
        return Err(Error::new(Code::Forbidden, what).help(format!("`chmod 600 {}`, or make a new key", file.display())));
    }
    let seed = fs::read_to_string(file).map_err(|error| failed(&error))?.trim().to_owned();
    let checked = KeyPair::from_seed(&seed).map(|_| seed);
    checked.map_err(|_| Error::new(Code::InvalidRequest, format!("{} holds no key", file.display())))
}
