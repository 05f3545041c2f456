//! What a machine that has joined keeps: its name, its keys, the way to the hub and the last directory.

use super::{
    access::{Access, Login},
    directory::{Directory, Signed},
    key::{self, broken},
    report::Context,
    seal::Seal,
    store,
};
use crate::{
    platform::{files, paths},
    wire::{self, Code, Error, MachineName},
};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};

const LINK: &str = "link.json";
const LOGIN: &str = "login.key";
const SEAL: &str = "seal.key";
const AUTHORITY: &str = "ca.pem";
const DIRECTORY: &str = "directory.json";

/// `link.json`. It is written last: a machine with it has joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Home {
    pub name: MachineName,
    /// The hub's addresses: HOST:PORT, separated by commas.
    pub hub: String,
    /// The public part of the key that signs the directory.
    pub owner: String,
    /// The hub's certificate is signed by the owner's authority, and not by a public one.
    pub has_authority: bool,
    /// The file of credentials, for a hub that others run.
    pub credentials: Option<PathBuf>,
    /// The hub's JetStream domain, for a machine behind a leaf node.
    #[serde(default)]
    pub domain: Option<String>,
    #[serde(skip)]
    pub folder: PathBuf,
}

pub(super) fn folder() -> wire::Result<PathBuf> {
    Ok(paths::config_folder()?.join("link"))
}

/// The public parts of a machine's keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Keys {
    pub login: String,
    pub seal: String,
}

/// The keys of a machine that joins. Those of a `join` that was killed are used again: the owner may have let them in, and an invitation lets
/// in no others then.
pub(super) fn make_keys(folder: &Path) -> wire::Result<Keys> {
    store::create_folder(folder)?;
    let (login, seal) = (folder.join(LOGIN), folder.join(SEAL));
    let is_there = |file: &Path| fs::exists(file).local(file.display());
    Ok(Keys {
        login: if is_there(&login)? { key::read(&login)?.public_key() } else { key::make_login(&login)? },
        seal: if is_there(&seal)? { key::read_seal(&seal)?.public_key() } else { key::make_seal(&seal)? },
    })
}

/// The file with the certificate of the owner's authority.
pub(super) fn authority_in(folder: &Path) -> PathBuf {
    folder.join(AUTHORITY)
}

impl Home {
    /// The link of this machine; none if it has not joined.
    pub fn find() -> wire::Result<Option<Self>> {
        let folder = folder()?;
        let found: Option<Self> = store::read_json(&folder.join(LINK))?;
        Ok(found.map(|home| Self { folder, ..home }))
    }

    pub fn open() -> wire::Result<Self> {
        Self::find()?.ok_or_else(|| {
            Error::new(Code::InvalidRequest, "this machine has not joined any others").help(
                "run `claude-peers link invite NAME` where you ran `claude-peers link init`, and here the line that it prints",
            )
        })
    }

    /// Records that this machine has joined.
    pub fn keep(&self) -> wire::Result<()> {
        store::write_json(&self.folder.join(LINK), self)
    }

    /// Forgets the link, its keys included.
    pub fn remove(self) -> wire::Result<()> {
        for file in [LINK, LOGIN, SEAL, AUTHORITY, DIRECTORY] {
            let file = self.folder.join(file);
            files::remove(&file).local(format_args!("removing {}", file.display()))?;
        }
        Ok(())
    }

    /// How to get to the hub.
    pub fn access(&self) -> wire::Result<Access> {
        let login = match &self.credentials {
            Some(file) => Login::Credentials(file.clone()),
            None => Login::Key(key::read(&self.folder.join(LOGIN))?.seed().map_err(broken)?),
        };
        let authority = self.has_authority.then(|| authority_in(&self.folder));
        Ok(Access { addresses: self.hub.clone(), login, authority, domain: self.domain.clone() })
    }

    /// What seals and opens for this machine.
    pub fn seal(&self) -> wire::Result<Seal> {
        Ok(Seal { machine: self.name.clone(), key: key::read_seal(&self.folder.join(SEAL))? })
    }

    /// The last directory that this machine has accepted.
    pub fn directory(&self) -> wire::Result<Directory> {
        let file = self.folder.join(DIRECTORY);
        let signed: Option<Signed> = store::read_json(&file)?;
        signed.map_or_else(|| Ok(Directory::default()), |signed| signed.open(&self.owner))
    }

    pub fn keep_directory(&self, signed: &Signed) -> wire::Result<()> {
        store::write_json(&self.folder.join(DIRECTORY), signed)
    }
}
