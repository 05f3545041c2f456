//! The owner of the machines: who has joined, who is invited, and the hub that serves them.
//!
//! All of it lies in one folder: `owner.json`, the owner's keys, and in `hub/` what the hub needs. The owner's keys need not be where the
//! hub is.

pub(super) mod certificates;
pub(super) mod config;
pub(super) mod init;
pub(super) mod invite;
pub(super) mod revoke;

use super::{
    directory::{Directory, Member, Signed},
    hub::{Access, Hub, Login},
    key::{self, broken},
    store, subject,
};
use crate::{
    platform::clock,
    wire::{self, Code, Error, MachineName, Timestamp},
};
use nkeys::KeyPair;
use rustix::{fs::FlockOperation, io::Errno};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep};

const OWNER: &str = "owner.json";
const SIGNING: &str = "owner.key";
const ADMIN: &str = "admin.key";
const AUTHORITY: &str = "ca.pem";
/// How long the hub may take to read a changed configuration, and a cluster to agree on a leader.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is asked whether it has a leader.
const LOOK: Duration = Duration::from_millis(50);

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

/// A machine that is invited.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Invited {
    pub name: MachineName,
    /// The public part of the key in the invitation.
    pub login: String,
    pub until: Timestamp,
}

/// The owner's folder where none is named.
pub(super) fn folder() -> wire::Result<PathBuf> {
    Ok(store::config_folder()?.join("hub"))
}

impl Owner {
    /// What the folder says.
    pub fn open(folder: &Path) -> wire::Result<Self> {
        let found: Option<Self> = store::read_json(&folder.join(OWNER))?;
        let found = found.map(|owner| Self { folder: folder.to_owned(), ..owner });
        found.ok_or_else(|| {
            Error::new(Code::InvalidRequest, format!("{} is no folder of an owner", folder.display()))
                .help("run this where `claude-peers link init` was run, or name its folder with `--folder`")
        })
    }

    /// Changes what the folder says. One process at a time.
    pub async fn change<T>(folder: &Path, change: impl FnOnce(&mut Self) -> wire::Result<T>) -> wire::Result<(Self, T)> {
        let _lock = lock(folder).await?;
        let mut owner = Self::open(folder)?;
        let now = clock::now();
        owner.invitations.retain(|invited| invited.until > now);
        let changed = change(&mut owner)?;
        owner.write()?;
        Ok((owner, changed))
    }

    /// Writes the state, and then the hub's configuration.
    fn write(&self) -> wire::Result<()> {
        store::write_json(&self.folder.join(OWNER), self)?;
        match self.credentials {
            Some(_) => Ok(()),
            None => config::write_machines(self),
        }
    }

    /// The folder that the hub needs.
    pub fn hub_folder(&self) -> PathBuf {
        self.folder.join("hub")
    }

    /// The certificate of the owner's authority.
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
            None => Login::Key(key.seed().map_err(|error| broken(&error))?),
        };
        Ok(Access { addresses: self.hub.clone(), login, authority: self.has_authority.then(|| self.authority()) })
    }

    /// Connects to the hub as its owner.
    pub async fn connect(&self) -> wire::Result<Hub> {
        self.access(&self.admin()?)?.connect_patiently("_INBOX_OWNER", PATIENCE).await
    }

    /// Makes the hub read its configuration, and returns when it has: its configuration names a new key each time, and the hub lets that
    /// key in. Then brings streams and directory up to date. All of it is done with what the folder says now, one process at a time: else
    /// a slow one could hand out an old directory after a new one.
    pub async fn apply(&self) -> wire::Result<Hub> {
        let _lock = lock(&self.folder).await?;
        Self::open(&self.folder)?.hand_out().await
    }

    async fn hand_out(&self) -> wire::Result<Hub> {
        if self.credentials.is_none() {
            config::reload(self).await?;
            self.is_read().await?;
        }
        let hub = self.connect().await?;
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = hub.prepare(self.replicas).await {
            // A cluster that has just started has to agree on a leader first.
            if error.code != Code::Busy || Instant::now() > deadline {
                return Err(error);
            }
            sleep(LOOK).await;
        }
        hub.publish_directory(&self.directory()?).await?;
        Ok(hub)
    }

    /// Waits until the hub has read its configuration. Of a cluster, each server that runs.
    async fn is_read(&self) -> wire::Result<()> {
        let probe = self.access(&config::probe(self)?)?;
        let (mut have_read, mut failure) = (0, None);
        for address in self.hub.split(',') {
            let probe = Access { addresses: address.to_owned(), ..probe.clone() };
            match probe.connect_patiently("_INBOX_PROBE", PATIENCE).await {
                Ok(_) => have_read += 1,
                Err(error) if error.code == Code::Forbidden => {
                    let what = format!("the hub at {address} runs, but has not read its changed configuration");
                    let help = format!("look at its log; it must read {}", self.hub_folder().display());
                    return Err(Error::new(Code::Internal, what).help(help));
                }
                Err(error) => failure = Some(error),
            }
        }
        // A server that does not run reads it when it starts.
        failure.filter(|_| have_read == 0).map_or(Ok(()), Err)
    }

    pub fn find(&self, name: &MachineName) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.name == *name)
    }
}

/// Locks the owner's folder against other processes until the result is dropped.
async fn lock(folder: &Path) -> wire::Result<File> {
    let failed = |error| super::error::local(&format!("locking {}", folder.display()), &error);
    let file = File::open(folder).map_err(failed)?;
    // A system call that waits would keep a signal from ending this.
    while let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        match error {
            Errno::WOULDBLOCK | Errno::INTR => sleep(LOOK).await,
            error => return Err(failed(error.into())),
        }
    }
    Ok(file)
}

/// The subject on which an owner hears a machine that joins, and what that machine is let do with it.
pub(super) fn joins(name: &MachineName) -> (String, String) {
    (subject::join(name), format!("{}.>", subject::join_inbox(name)))
}
