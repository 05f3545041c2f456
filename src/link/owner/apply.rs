//! Changes of the machines: first in the owner's folder, then on the hub.

use super::{OWNER, Owner, PATIENCE, config};
use crate::{
    link::{access::Access, hub::Hub, report::Context, store},
    platform::clock,
    wire::{self, Code, Error},
};
use std::{
    fs::{File, TryLockError},
    path::Path,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How often a cluster is asked whether it has a leader, and a lock is tried.
const LOOK: Duration = Duration::from_millis(50);

impl Owner {
    /// Changes what the folder says. One process at a time.
    pub async fn change<T>(folder: &Path, change: impl FnOnce(&mut Self) -> wire::Result<T>) -> wire::Result<(Self, T)> {
        Self::open(folder)?;
        let _lock = lock(folder).await?;
        let mut owner = Self::open(folder)?;
        let now = clock::now();
        owner.invitations.retain(|invited| invited.until > now);
        let changed = change(&mut owner)?;
        owner.write()?;
        Ok((owner, changed))
    }

    /// Writes the state, and then the hub's configuration.
    pub fn write(&self) -> wire::Result<()> {
        store::write_json(&self.folder.join(OWNER), self)?;
        match self.credentials {
            Some(_) => Ok(()),
            None => config::write_machines(self),
        }
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
}

/// Locks the owner's folder against other processes until the result is dropped.
async fn lock(folder: &Path) -> wire::Result<File> {
    let doing = format!("locking {}", folder.display());
    let file = File::open(folder).local(&doing)?;
    // A system call that waits would keep a signal from ending this.
    while let Err(error) = file.try_lock() {
        match error {
            TryLockError::WouldBlock => sleep(LOOK).await,
            TryLockError::Error(error) => return Err(error).local(doing),
        }
    }
    Ok(file)
}
