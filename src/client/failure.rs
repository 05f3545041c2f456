use crate::wire::{API, API_MIN, Code, Error, Hello, VERSION};
use rustix::io::Errno;
use std::io;

/// What a person does when the broker cannot be reached.
pub const START_HELP: &str = "`claude-peers doctor` finds out why; to run it by hand: `claude-peersd`";

pub const OUTSIDE: &str = "run it outside the sandbox; for Claude Code's Bash, add `claude-peers *` to `sandbox.excludedCommands` \
     in its settings.json";

/// Whether the error of a connection shows a sandbox: file permissions give another one.
pub fn is_sandboxed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::PERM.raw_os_error())
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the claude-peers broker cannot be reached at {socket}: {cause}")]
    Unreachable { socket: String, cause: String },
    #[error("a sandbox keeps this program from connecting to {socket}")]
    Sandboxed { socket: String },
    #[error("{socket} is served by user {owner}, not by you (user {ours})")]
    OtherUser { socket: String, owner: u32, ours: u32 },
    #[error("the program that answers at {socket} is not claude-peersd")]
    OtherProgram { socket: String },
    #[error(
        "this program ({VERSION}, protocol {API_MIN} to {API}) and the broker ({}, protocol {} to {}) have no protocol version in common",
        .0.version, .0.api_min, .0.api
    )]
    OtherVersion(Hello),
    #[error("the broker's answer (HTTP {status}) cannot be read: {source}")]
    Unreadable { status: hyper::StatusCode, source: serde_json::Error },
    #[error("writing the request: {0}")]
    Unwritable(String),
    #[error(transparent)]
    Refused(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let error = |code| Self::new(code, failure.to_string());
        match &failure {
            Failure::Unreachable { .. } => error(Code::Unreachable).help(START_HELP),
            Failure::Sandboxed { .. } => error(Code::Unreachable).help(OUTSIDE),
            Failure::OtherUser { .. } => error(Code::Forbidden).help("set CLAUDE_PEERS_SOCKET to a socket of your own"),
            Failure::OtherProgram { .. } => error(Code::VersionMismatch).help("stop it, or set CLAUDE_PEERS_SOCKET"),
            Failure::OtherVersion(hello) if hello.api < API_MIN => {
                error(Code::VersionMismatch).help("restart the broker after the upgrade: `systemctl --user restart claude-peers`")
            }
            Failure::OtherVersion(_) => error(Code::VersionMismatch).help("upgrade this program"),
            Failure::Unreadable { .. } => error(Code::VersionMismatch),
            Failure::Unwritable(_) => error(Code::InvalidRequest),
            Failure::Refused(refused) => refused.clone(),
        }
    }
}
