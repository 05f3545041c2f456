//! The two ends that all tasks of the link share, the directory that says with whom they speak, and what these have said of their sessions.

use super::{
    directory::{Directory, Member, Signed},
    home::Home,
    hub::Hub,
    retry::{PAUSE, until_answered},
    seal::{Content, Seal},
};
use crate::{
    client::Client,
    wire::{self, AnnouncedPeer, MachineName},
};
use async_nats::Subscriber;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::watch, time::sleep};

/// Both ends of a link, and what all its tasks share.
#[derive(Debug)]
pub(super) struct Link {
    pub broker: Client,
    pub hub: Hub,
    pub seal: Seal,
    pub directory: watch::Sender<Arc<Directory>>,
    pub presences: Presences,
    pub home: Home,
}

/// What the machines have told each other of their sessions. The lock is never held across a wait.
#[derive(Debug, Default)]
pub(super) struct Presences {
    pub here: watch::Sender<Option<Here>>,
    there: Mutex<HashMap<MachineName, There>>,
}

/// The sessions of a machine.
#[derive(Debug, Clone)]
pub(super) struct Here {
    pub version: String,
    pub peers: Vec<AnnouncedPeer>,
}

/// What another machine has said.
#[derive(Debug, Default)]
pub(super) struct There {
    pub list: Option<Here>,
    /// The question that it has not answered yet.
    pub question: Option<String>,
}

impl Presences {
    pub fn there(&self) -> MutexGuard<'_, HashMap<MachineName, There>> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// `POST path` to the broker, until it answers or refuses for good.
    pub async fn ask_broker<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> wire::Result<T> {
        until_answered(async || self.broker.post(path, None, body).await).await
    }

    /// Subscribes to a subject on the hub; tries until that works.
    pub async fn subscribe(&self, subject: String) -> Subscriber {
        loop {
            match self.hub.client.subscribe(subject.clone()).await {
                Ok(subscriber) => return subscriber,
                Err(error) => tracing::warn!("subscribing to {subject}: {error}"),
            }
            sleep(PAUSE).await;
        }
    }

    /// Opens what `from` has sealed to this machine. An old directory may not have its key, so a new one is fetched before it is refused.
    pub async fn open(&self, from: &MachineName, sealed: &[u8]) -> wire::Result<Content> {
        let directory = self.directory.borrow().clone();
        if let Ok(content) = self.seal.open(&directory, from, sealed) {
            return Ok(content);
        }
        self.fetch_directory().await;
        let directory = self.directory.borrow().clone();
        self.seal.open(&directory, from, sealed)
    }

    /// The machine in the directory; a new one is fetched before it is said to be none of them.
    pub async fn member(&self, machine: &MachineName) -> Option<Member> {
        let known = self.directory.borrow().get(machine).cloned();
        if known.is_none() {
            self.fetch_directory().await;
        }
        known.or_else(|| self.directory.borrow().get(machine).cloned())
    }

    /// Fetches the directory; tries until that works.
    pub async fn fetch_directory(&self) {
        loop {
            match self.hub.directory().await {
                Ok(signed) => return signed.into_iter().for_each(|signed| self.accept(&signed)),
                Err(error) => tracing::warn!("{}", error.message),
            }
            sleep(PAUSE).await;
        }
    }

    /// Takes a directory that its owner has signed and that is newer.
    pub fn accept(&self, signed: &Signed) {
        let directory = match signed.open(&self.home.owner) {
            Ok(directory) => directory,
            Err(error) => return tracing::error!("{}", error.message),
        };
        let known = self.directory.borrow().serial;
        if directory.serial < known {
            tracing::warn!("ignoring directory {} from the hub: this machine already has {known}", directory.serial);
        }
        if directory.serial <= known {
            return;
        }
        if let Err(error) = self.home.keep_directory(signed) {
            tracing::error!("{}", error.message);
        }
        tracing::info!("directory {} with {} machines", directory.serial, directory.machines.len());
        self.directory.send_replace(Arc::new(directory));
    }
}
