//! The service manager of this user: which one there is, and what can be asked of it.
//!
//! Promises: nothing here changes anything until a [`Call`] is run; a call names itself as one would type it.

mod launchd;
mod systemd;

pub use launchd::{LABEL, Launchd, domain, log, plist};
pub use systemd::{SERVICE, SOCKET, SOCKETS, Systemd, TCP_SOCKET, Unit, Units};

use std::time::Duration;

pub const READ_LOG: &str =
    if cfg!(target_os = "macos") { "less ~/Library/Logs/claude-peers/broker.log" } else { "journalctl --user -u claude-peers" };

/// How long a service manager may take: starting a broker, or stopping one that drains first.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub enum Manager {
    Systemd(Systemd),
    Launchd(Launchd),
    None(Absent),
}

#[derive(Debug, Clone)]
pub struct Absent {
    pub reason: String,
    /// What brings it back where this machine has one; nothing where it has none, as in most containers.
    pub help: Option<&'static str>,
}

/// What keeps a broker stopped that the service manager would start again.
pub fn keep_stopped() -> String {
    if cfg!(target_os = "macos") {
        return format!("launchctl bootout {}/{LABEL}", domain());
    }
    format!("systemctl --user stop {SOCKET} {TCP_SOCKET} {SERVICE}")
}

impl Manager {
    /// Looks for it, and has it answer.
    pub async fn find() -> Self {
        let found = if cfg!(target_os = "macos") {
            Launchd::find().await.map(Self::Launchd)
        } else if cfg!(target_os = "linux") {
            Systemd::find().await.map(Self::Systemd)
        } else {
            Err(Absent { reason: "claude-peers knows no service manager of this system".to_owned(), help: None })
        };
        found.unwrap_or_else(Self::None)
    }
}
