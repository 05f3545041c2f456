use super::{Code, Error, PeerId, Route, Timestamp};
use serde::{Deserialize, Serialize};

/// Which peers a list shows, seen from a working directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Every peer of this user.
    Machine,
    /// Peers with the same working directory.
    Directory,
    /// Peers in the same git repository, its other worktrees and subdirectories included; without a repository, the
    /// same directory.
    Repo,
}

impl std::str::FromStr for Scope {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "machine" => Ok(Self::Machine),
            "directory" => Ok(Self::Directory),
            "repo" => Ok(Self::Repo),
            other => {
                let other: String = other.chars().take(40).collect();
                Err(Error::new(Code::UnknownScope, format!("scope {other:?} is unknown"))
                    .help("use \"machine\", \"directory\" or \"repo\""))
            }
        }
    }
}

impl Scope {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Directory => "directory",
            Self::Repo => "repo",
        }
    }
}

/// Whether a peer can be reached right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its connection is open.
    Connected,
    /// Its process lives, but its connection is not open (the broker or the MCP server is restarting).
    Reconnecting,
    /// Its process is gone; mail waits for it to be resumed.
    Gone,
}

/// Who wrote a summary; a later kind overrules an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum SummarySource {
    /// Nobody yet.
    None,
    /// Made from git's facts on this machine.
    Local,
    /// Made by a language model from the same facts.
    Generated,
    /// Set by the session itself.
    Session,
}

/// `CLAUDE_PEERS_DELIVERY`: how a session wants its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DeliveryChoice {
    /// The best route that is open.
    #[default]
    Auto,
    /// Write into the inbox of the session's client, or else wait to be asked.
    Inbox,
    /// Push into the channel, whatever the start flags say.
    Channel,
    /// Never push: the session asks.
    Pull,
}

impl std::str::FromStr for DeliveryChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "inbox" => Ok(Self::Inbox),
            "channel" => Ok(Self::Channel),
            "pull" => Ok(Self::Pull),
            _ => Err("allowed: auto, inbox, channel, pull".to_owned()),
        }
    }
}

/// What is let into a session from other sessions: its client's setting `crossSessionInbound`, else `CLAUDE_PEERS_INBOUND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum InboundRule {
    /// What comes from a session in another class of permission modes is held: one of the two bypasses prompts, the other does not.
    #[default]
    Match,
    /// Everything is let in.
    Accept,
    /// Everything is held for the user.
    Hold,
    /// Nothing is let in.
    Refuse,
}

impl InboundRule {
    /// The rule that `CLAUDE_PEERS_INBOUND` names: `match` or `accept`. The others are for the client's own setting.
    pub fn chosen(text: &str) -> Option<Self> {
        [("match", Self::Match), ("accept", Self::Accept)].into_iter().find(|(name, _)| *name == text).map(|(_, rule)| rule)
    }
}

/// What git says about a working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Git {
    /// The absolute path of the common git directory: the same for every worktree and subdirectory of a repository.
    pub common_dir: String,
    /// The absolute path of this worktree's `HEAD` file.
    pub head: String,
    /// The repository's short name.
    pub repo: String,
    /// The current branch; none when the head is detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

/// The process that hosts a session (the `claude` process), told apart from a later one with the same number by its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
pub struct Process {
    /// The process id.
    pub pid: u32,
    /// When it started, in the kernel's own ticks since boot; 0 where that cannot be read.
    pub started: u64,
}

/// A peer, as lists show it. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// The peer's id.
    pub id: PeerId,
    /// Its readable name, unique among live peers and accepted wherever an id is.
    pub name: String,
    /// Its working directory.
    pub cwd: String,
    /// The short name of its git repository.
    pub git_repo: Option<String>,
    /// The branch it has checked out now; none without a repository or with a detached head.
    pub git_branch: Option<String>,
    /// What it says it is working on.
    pub summary: String,
    /// Its last sign of life.
    pub last_seen: Timestamp,
    /// Whether it can be reached right now.
    pub status: Status,
    /// The route by which a message will reach it.
    pub delivery: Route,
    /// Why that route.
    pub delivery_reason: String,
    /// How many messages wait for it.
    pub waiting: u32,
    /// The session's process, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The session's terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<String>,
    /// When it first registered.
    pub registered_at: Timestamp,
}
