//! The owner of the machines: who has joined, who is invited, and the hub that serves them.
//!
//! All of it lies in one folder: `owner.json`, the owner's keys, and in `hub/` what the hub needs. The owner's keys need not be where the
//! hub is.

mod apply;
pub(super) mod certificates;
pub(super) mod config;
pub(super) mod init;
pub(super) mod invite;
pub(super) mod revoke;

use super::{
    access::{Access, Login},
    directory::{Directory, Member, Signed},
    hub::Hub,
    key::{self, broken},
    store,
};
use crate::{
    platform::paths,
    wire::{self, Code, Error, MachineName, Timestamp},
};
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

const OWNER: &str = "owner.json";
const SIGNING: &str = "owner.key";
const ADMIN: &str = "admin.key";
const AUTHORITY: &str = "ca.pem";

/// How long the hub may take to read a changed configuration, and a cluster to agree on a leader.
const PATIENCE: Duration = Duration::from_secs(20);

/// `owner.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Owner {
    /// The hub's addresses: HOST:PORT, separated by commas.
    pub hub: String,
    /// Counts the changes of the directory.
    pub serial: u64,
    pub machines: Vec<Machine>,
    #[serde(default)]
    pub invitations: Vec<Invited>,
    /// How many servers of a cluster keep what is stored.
    pub replicas: usize,
    /// The command that brings a changed configuration to the hub, where the hub is not on this machine.
    pub apply: Option<String>,
    /// The file of credentials, for a hub that others run. Then there is no configuration.
    pub credentials: Option<PathBuf>,
    /// The hub's certificate is signed by the owner's authority.
    pub has_authority: bool,
    #[serde(skip)]
    folder: PathBuf,
}

/// A machine that has joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Machine {
    pub name: MachineName,
    /// The public parts of its keys.
    pub login: String,
    pub seal: String,
    pub joined: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Invited {
    pub name: MachineName,
    /// The public part of the key in the invitation.
    pub login: String,
    pub until: Timestamp,
}

/// The owner's folder where none is named.
pub(super) fn folder() -> wire::Result<PathBuf> {
    Ok(paths::config_folder()?.join("hub"))
}

impl Owner {
    /// What the folder says.
    pub fn open(folder: &Path) -> wire::Result<Self> {
        let found: Option<Self> = store::read_json(&folder.join(OWNER))?;
        let found = found.map(|owner| Self { folder: folder.to_owned(), ..owner });
        found.ok_or_else(|| {
            Error::new(Code::InvalidRequest, format!("there is no hub set up in {}", folder.display()))
                .help("run this on the machine where you ran `claude-peers link init`, or name its folder with `--folder`")
        })
    }

    /// The folder that the hub needs.
    pub fn hub_folder(&self) -> PathBuf {
        self.folder.join("hub")
    }

    pub fn authority(&self) -> PathBuf {
        self.hub_folder().join(AUTHORITY)
    }

    pub fn signing(&self) -> wire::Result<KeyPair> {
        key::read(&self.folder.join(SIGNING))
    }

    fn admin(&self) -> wire::Result<KeyPair> {
        key::read(&self.folder.join(ADMIN))
    }

    pub fn directory(&self) -> wire::Result<Signed> {
        let member = |machine: &Machine| Member { name: machine.name.clone(), seal: machine.seal.clone() };
        let directory = Directory { serial: self.serial, machines: self.machines.iter().map(member).collect() };
        directory.sign(&self.signing()?)
    }

    /// How to get to the hub with this key.
    pub fn access(&self, key: &KeyPair) -> wire::Result<Access> {
        let login = match &self.credentials {
            Some(file) => Login::Credentials(file.clone()),
            None => Login::Key(key.seed().map_err(broken)?),
        };
        Ok(Access { addresses: self.hub.clone(), login, authority: self.has_authority.then(|| self.authority()), domain: None })
    }

    pub async fn connect(&self) -> wire::Result<Hub> {
        self.access(&self.admin()?)?.connect_patiently("_INBOX_OWNER", PATIENCE).await
    }

    pub fn find(&self, name: &MachineName) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.name == *name)
    }
}
