//! Keys. A machine has two: an nkey by which the hub knows it, and an xkey to which the other machines seal what they send it. The
//! owner of the machines has one that signs the [directory](super::directory).
//!
//! A login key signs any challenge that the hub sends. It must sign nothing else: the hub could get a directory signed.

use super::store;
use crate::wire::{self, Code, Error};
use nkeys::{KeyPair, XKey};
use std::path::Path;

/// Makes a key that logs in to a hub, in `file`; returns its public part.
pub(super) fn make_login(file: &Path) -> wire::Result<String> {
    let key = KeyPair::new_user();
    save(file, key.seed(), key.public_key())
}

/// Makes a key that signs directories, in `file`.
pub(super) fn make_signing(file: &Path) -> wire::Result<String> {
    let key = KeyPair::new_account();
    save(file, key.seed(), key.public_key())
}

/// Makes a key to which others seal, in `file`; returns its public part.
pub(super) fn make_seal(file: &Path) -> wire::Result<String> {
    let key = XKey::new();
    save(file, key.seed(), key.public_key())
}

fn save(file: &Path, seed: Result<String, nkeys::error::Error>, public: String) -> wire::Result<String> {
    store::write(file, format!("{}\n", seed.map_err(broken)?).as_bytes())?;
    Ok(public)
}

/// The key in `file` that logs in or signs.
pub(super) fn read(file: &Path) -> wire::Result<KeyPair> {
    KeyPair::from_seed(&store::read_secret(file)?).map_err(|_| no_key(file))
}

/// The key in `file` that opens what is sealed to it.
pub(super) fn read_seal(file: &Path) -> wire::Result<XKey> {
    XKey::from_seed(&store::read_secret(file)?).map_err(|_| no_key(file))
}

fn no_key(file: &Path) -> Error {
    Error::new(Code::InvalidRequest, format!("{} holds no key", file.display()))
}

/// The error of a key that cannot do what keys do.
pub(super) fn broken(error: nkeys::error::Error) -> Error {
    Error::new(Code::Internal, format!("a key cannot be used: {error}"))
}
