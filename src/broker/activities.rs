//! Reports when the activity of sessions may have changed: the kernel reports files that agents have written.
//!
//! Where the kernel cannot, and for some seconds after a session or a folder is new, it reports a possible change once a second instead.

use super::{core::Broker, presence::LOOK_AGAIN};
use crate::platform::folders::Folders;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};

/// How long a new session may take to write its status file.
const SETTLED: Duration = Duration::from_secs(10);

/// Follows the status files of all sessions.
#[derive(Debug)]
pub(super) struct Activities {
    broker: Arc<Broker>,
    /// None if the kernel cannot report changes.
    folders: Option<Folders>,
    files: BTreeSet<String>,
    looked: Instant,
    /// Until then a file may be written without a report.
    settled: Instant,
}

impl Activities {
    pub fn of(broker: &Arc<Broker>) -> Self {
        let folders = Folders::new().inspect_err(|error| tracing::warn!(%error, "watching folders failed: {error}")).ok();
        let now = Instant::now();
        Self { broker: broker.clone(), folders, files: BTreeSet::new(), looked: now, settled: now }
    }

    /// The files have been read: from now on their changes are told.
    pub fn looked(&mut self) {
        self.looked = Instant::now();
        let files = self.broker.status_files();
        let watched = self.folders.as_mut().map(|folders| folders.watch_all(self.broker.status_folders()));
        let has_new_folder = watched.is_some_and(|watched| watched.unwrap_or_else(|error| self.give_up(&error)));
        if has_new_folder || files != self.files {
            self.settled = self.looked + SETTLED;
        }
        self.files = files;
    }

    /// Resolves when the files should be read again. Cancel-safe.
    pub async fn changed(&mut self) {
        let is_told = Folders::TELL && self.folders.is_some() && self.looked >= self.settled;
        let folder_changed = async {
            match &self.folders {
                Some(folders) => folders.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = folder_changed => if let Err(error) = changed {
                self.give_up(&error);
            },
            () = sleep_until(self.looked + LOOK_AGAIN), if !is_told && !self.files.is_empty() => {}
        }
    }

    fn give_up(&mut self, error: &std::io::Error) -> bool {
        tracing::warn!(%error, "watching folders failed: {error}");
        self.folders = None;
        false
    }
}
