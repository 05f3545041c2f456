//! The subjects on the hub. Each begins with the machine that publishes on it, so that the hub's permissions prove the sender.

use crate::wire::MachineName;

/// The stream that holds the letters on their way.
pub(super) const STREAM: &str = "claude-peers";
/// What it holds: `claude-peers.FROM.mail.TO`.
pub(super) const STORED: &str = "claude-peers.*.mail.*";
/// A machine says that it is there: `claude-peers.FROM.alive`.
pub(super) const ALL_ALIVE: &str = "claude-peers.*.alive";
/// The stream that holds the directory of machines, and the directory's subject.
pub(super) const DIRECTORY: &str = "claude-peers-directory";

/// Where `from` stores letters for `to`.
pub(super) fn mail(from: &MachineName, to: &MachineName) -> String {
    format!("claude-peers.{from}.mail.{to}")
}

/// All letters for `to`.
pub(super) fn mail_for(to: &MachineName) -> String {
    format!("claude-peers.*.mail.{to}")
}

/// All letters of `from`.
pub(super) fn mail_from(from: &MachineName) -> String {
    format!("claude-peers.{from}.mail.*")
}

/// Where `from` says that it is there.
pub(super) fn alive(from: &MachineName) -> String {
    format!("claude-peers.{from}.alive")
}

/// Where `from` asks `to` who is there.
pub(super) fn ask(from: &MachineName, to: &MachineName) -> String {
    format!("claude-peers.{from}.ask.{to}")
}

/// All such questions to `to`.
pub(super) fn asks_for(to: &MachineName) -> String {
    format!("claude-peers.*.ask.{to}")
}

/// Where `from` answers that question of `to`.
pub(super) fn peers(from: &MachineName, to: &MachineName) -> String {
    format!("claude-peers.{from}.peers.{to}")
}

/// All such answers to `to`.
pub(super) fn peers_for(to: &MachineName) -> String {
    format!("claude-peers.*.peers.{to}")
}

/// Where a machine with an invitation asks to join.
pub(super) fn join(name: &MachineName) -> String {
    format!("claude-peers-join.{name}")
}

/// Where the hub answers a machine.
pub(super) fn inbox(name: &MachineName) -> String {
    format!("_INBOX_{name}")
}

/// Where the hub answers a machine with an invitation. No machine's name has capitals.
pub(super) fn join_inbox(name: &MachineName) -> String {
    format!("_INBOX_JOIN_{name}")
}

/// The machine that published on a subject that begins with its name.
pub(super) fn publisher(subject: &str) -> Option<MachineName> {
    subject.strip_prefix("claude-peers.")?.split('.').next()?.parse().ok()
}
