use super::{
    Code, Error, PeerId, Route, Timestamp,
    define::{object, words},
    error::echo,
};

words! {
    /// Which peers a list shows, seen from a working directory.
    pub enum Scope {
        Machine = "machine",
        Directory = "directory",
        /// Peers in the same git repository, its other worktrees and subdirectories included; without a repository, the
        /// same directory.
        Repo = "repo",
        /// Those, and the peers in repositories with the same remote URL: other clones here, and those on other machines.
        RepoEverywhere = "repo-everywhere",
        /// All peers, those of other machines included.
        Everywhere = "everywhere",
    }

    /// Whether a peer can be reached right now.
    pub enum Status {
        /// Its connection is open.
        Connected = "connected",
        /// Its process lives, but its connection is not open (the broker or the MCP server is restarting).
        Reconnecting = "reconnecting",
        /// Its process is gone; mail waits for it to be resumed.
        Gone = "gone",
    }

    /// What a session does.
    pub enum Doing {
        /// It waits for a prompt or a message.
        Idle = "idle",
        /// Its model works.
        Working = "working",
        /// It waits for its user: a permission prompt or a question is open.
        NeedsYou = "needs_you",
        /// Its agent has outlived the terminal that it ran in: nobody sees what it does.
        Unattended = "unattended",
    }

    /// Who wrote a summary; a later kind overrules an earlier one.
    pub enum SummarySource {
        None = "none",
        /// Made from git's facts on this machine.
        Local = "local",
        /// Made by a language model from the same facts.
        Generated = "generated",
        Session = "session",
    }

    /// `CLAUDE_PEERS_DELIVERY`: how a session wants its messages.
    #[derive(Default)]
    pub enum DeliveryChoice {
        /// The best route that is open.
        #[default]
        Auto = "auto",
        /// Write into the inbox of the session's client, or else wait to be asked.
        Inbox = "inbox",
        /// Push into the channel, whatever the start flags say.
        Channel = "channel",
        /// Never push: the session asks.
        Pull = "pull",
    }

    /// What lets messages into a running session, and tells which of them its model was shown.
    pub enum Door {
        /// The agent's inbox socket; its transcript tells.
        Inbox = "inbox",
        /// Our plugin inside the agent.
        Plugin = "plugin",
        /// The daemon that runs the agent's sessions.
        Daemon = "daemon",
    }

    /// Which messages a session lets in from other sessions: its client's `crossSessionInbound`, else `CLAUDE_PEERS_INBOUND`.
    #[derive(Default)]
    pub enum InboundRule {
        /// A message is held if one of the two sessions bypasses permission prompts and the other does not.
        #[default]
        Match = "match",
        Accept = "accept",
        Hold = "hold",
        Refuse = "refuse",
    }
}

impl std::str::FromStr for Scope {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).ok_or_else(|| {
            Error::new(Code::UnknownScope, format!("scope {:?} is unknown", echo(text)))
                .help("use \"machine\", \"directory\", \"repo\" or \"everywhere\"; \"repo-everywhere\" is the repository on all machines")
        })
    }
}

/// `codex 0.169.0`
impl std::fmt::Display for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

impl InboundRule {
    /// The rule that `CLAUDE_PEERS_INBOUND` names: `match` or `accept`. The others are for the client's own setting.
    pub fn chosen(text: &str) -> Option<Self> {
        Self::parse(text).filter(|rule| matches!(rule, Self::Match | Self::Accept))
    }
}

object! {
    pub struct Git {
        /// The absolute path of the common git directory: the same for every worktree and subdirectory of a repository.
        pub common_dir: String,
        /// The absolute path of this worktree's `HEAD` file.
        pub head: String,
        pub repo: String,
        /// The current branch; none when the head is detached.
        pub branch: Option<String>,
    }

    /// The process that runs a session (the `claude` process). Its start time tells it apart from a later process with the same
    /// number.
    #[derive(Copy, Hash)]
    pub struct Process {
        pub pid: u32,
        /// When it started, in the kernel's own ticks since boot; 0 where that cannot be read.
        pub started: u64,
    }

    /// The coding agent that runs a session.
    pub struct Agent {
        /// Its short name, as setup takes it: `claude`, `codex` …; of an unknown agent the name that it gives itself.
        pub name: String,
        pub version: String,
    }

    /// What a session does now, as its agent says.
    pub struct Activity {
        pub doing: Doing,
        pub since: Option<Timestamp>,
        /// What it needs its user for, in the agent's words.
        pub needs: Option<String>,
    }

    /// A peer, as lists show it. Never holds a secret.
    pub struct Peer {
        pub id: PeerId,
        /// Its readable name, unique among live peers and accepted wherever an id is.
        pub name: String,
        pub cwd: String,
        #[serialize_always]
        pub git_repo: Option<String>,
        /// The branch it has checked out now; none without a repository or with a detached head.
        #[serialize_always]
        pub git_branch: Option<String>,
        pub summary: String,
        pub last_seen: Timestamp,
        pub status: Status,
        /// The route by which a message will reach it.
        pub delivery: Route,
        pub delivery_reason: String,
        pub agent: Option<Agent>,
        /// None if unknown.
        pub activity: Option<Activity>,
        pub waiting: u32,
        pub pid: Option<u32>,
        pub tty: Option<String>,
        /// The container that it runs in; its directory is then one inside.
        pub container: Option<String>,
        /// The other machine that it runs on; its directory is one there.
        pub machine: Option<String>,
        /// When it first registered.
        pub registered_at: Timestamp,
    }
}
