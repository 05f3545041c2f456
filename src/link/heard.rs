//! What the machines have told each other of their sessions.

use crate::wire::{AnnouncedPeer, MachineName};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// What is known of all machines. The lock is never held across a wait.
#[derive(Debug, Default)]
pub(super) struct Presences {
    pub here: watch::Sender<Option<Here>>,
    there: Mutex<HashMap<MachineName, There>>,
}

/// The sessions of this machine.
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
