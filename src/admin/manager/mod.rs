//! This user's service manager: systemd or launchd. A [`Call`] changes nothing until it is run.

mod launchd;
mod systemd;

pub use launchd::{LABEL, Launchd, agent, log, socket};
pub use systemd::{SERVICE, SOCKET, SOCKETS, Systemd, TCP_SOCKET, Unit, Units};

use crate::platform::call::{Call, CallFailed};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub enum Manager {
    Systemd(Systemd),
    Launchd(Launchd),
    None(Absent),
}

#[derive(Debug, Clone)]
pub struct Absent {
    pub reason: String,
    /// How to reach the manager on machines that have one; none in most containers.
    pub help: Option<&'static str>,
}

/// The command that keeps a broker stopped even though the service manager listens for it.
pub fn keep_stopped() -> String {
    if cfg!(target_os = "macos") {
        return format!("launchctl bootout {}/{LABEL}", launchd::domain());
    }
    format!("systemctl --user stop {SOCKET} {TCP_SOCKET} {SERVICE}")
}

impl Manager {
    /// Finds the manager and checks that it answers.
    pub async fn find() -> Self {
        let found = if cfg!(target_os = "macos") {
            Launchd::find().await.map(Self::Launchd)
        } else if cfg!(target_os = "linux") {
            Systemd::find().await.map(Self::Systemd)
        } else {
            Err(("claude-peers supports no service manager on this system".to_owned(), None))
        };
        found.unwrap_or_else(|(reason, help)| Self::None(Absent { reason, help }))
    }

    /// The Unix socket of the installed service.
    pub fn socket(&self, home: &Path) -> Option<PathBuf> {
        match self {
            Self::Systemd(systemd) => Some(systemd.socket()),
            Self::Launchd(_) => Some(socket(home)),
            Self::None(_) => None,
        }
    }

    /// Whether the manager runs a broker; none without a manager.
    pub async fn runs_broker(&self) -> Option<Result<bool, CallFailed>> {
        Some(match self {
            Self::Systemd(systemd) => systemd.our_units().await.map(|units| units.service.is_active()),
            Self::Launchd(launchd) => launchd.pid().await.map(|pid| pid.is_some()),
            Self::None(_) => return None,
        })
    }

    /// Replaces a running broker with the installed program. The manager holds the sockets meanwhile.
    pub fn restart(&self) -> Option<Call> {
        match self {
            Self::Systemd(systemd) => Some(systemd.restart()),
            Self::Launchd(launchd) => Some(launchd.restart()),
            Self::None(_) => None,
        }
    }
}
