//! The subjects on the hub. Each begins with the machine that publishes on it, so that the hub's permissions prove the sender.

use crate::wire::MachineName;

/// The stream that holds what is on its way.
pub(super) const STREAM: &str = "claude-peers";
/// What the stream holds: `claude-peers.FROM.TO.mail` and `claude-peers.FROM.TO.receipt`.
pub(super) const STORED: &str = "claude-peers.*.*.*";
/// Who is where: `claude-peers.FROM.peers`.
pub(super) const ALL_PEERS: &str = "claude-peers.*.peers";
/// A machine asks the others to say who is there: `claude-peers.FROM.hello`.
pub(super) const ALL_HELLOS: &str = "claude-peers.*.hello";

/// What a machine publishes for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Mail,
    Receipt,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Receipt => "receipt",
        }
    }
}

/// Where `from` publishes for `to`.
pub(super) fn between(from: &MachineName, to: &MachineName, kind: Kind) -> String {
    format!("claude-peers.{from}.{to}.{}", kind.as_str())
}

/// Everything that is stored for `to`.
pub(super) fn for_machine(to: &MachineName) -> String {
    format!("claude-peers.*.{to}.*")
}

pub(super) fn peers_of(machine: &MachineName) -> String {
    format!("claude-peers.{machine}.peers")
}

pub(super) fn hello_of(machine: &MachineName) -> String {
    format!("claude-peers.{machine}.hello")
}

/// The sender in a stored subject, and what it sent.
pub(super) fn stored(subject: &str) -> Option<(MachineName, Kind)> {
    let mut parts = subject.strip_prefix("claude-peers.")?.split('.');
    let (from, _, kind) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
    let kind = [Kind::Mail, Kind::Receipt].into_iter().find(|known| known.as_str() == kind)?;
    parts.next().is_none().then_some((from, kind))
}

/// The machine that published on a subject such as `claude-peers.FROM.peers`.
pub(super) fn publisher(subject: &str) -> Option<MachineName> {
    subject.strip_prefix("claude-peers.")?.split('.').next()?.parse().ok()
}
