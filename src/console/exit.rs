//! How a command ends: its exit code, and the failure behind it. People's scripts rely on the numbers, so a published one keeps its
//! meaning.

use crate::{
    platform::settings::InvalidSetting,
    wire::{self, Code},
};
use serde::Serialize;
use std::{io, path::Path, process::ExitCode};

/// The exit codes, for `--help`.
pub const EXIT_CODES: [(Exit, &str); 9] = [
    (Exit::Success, "success"),
    (Exit::Failure, "the command failed for another reason"),
    (Exit::Usage, "wrong usage, or a setting that cannot be used"),
    (Exit::Unreachable, "the broker cannot be reached"),
    (Exit::NotFound, "no such peer or message"),
    (Exit::Refused, "refused by a limit or a rule: rate, repeat, mailbox full, too large,\n     forbidden"),
    (Exit::Version, "the versions of this program and the broker do not match"),
    (Exit::NoAnswer, "no answer came in time, or none can come"),
    (Exit::Interrupted, "stopped with Ctrl-C"),
];

pub const UNSET: &str = "correct or unset the variable";
/// For a call to the system that fails only where something has run out.
pub const LIMITS: &str = "look at the limits of this session (`ulimit -a`)";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Success = 0,
    Failure = 1,
    Usage = 2,
    Unreachable = 3,
    NotFound = 4,
    Refused = 5,
    Version = 6,
    NoAnswer = 7,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Code> for Exit {
    fn from(code: Code) -> Self {
        use Code as C;
        match code {
            C::InvalidRequest | C::InvalidId | C::UnknownScope | C::InvalidPath | C::EmptyMessage => Self::Usage,
            C::Unreachable | C::Stopping | C::DatabaseMoved => Self::Unreachable,
            C::PeerNotFound | C::AmbiguousPeer | C::MessageNotFound | C::ContainerNotFound => Self::NotFound,
            C::TooLarge | C::RateLimited | C::RepeatLimited | C::MailboxFull | C::NoMailbox | C::Busy => Self::Refused,
            C::Forbidden | C::Unauthorized => Self::Refused,
            // The broker does not know a path or method of this program: their versions differ.
            C::VersionMismatch | C::NotFound | C::MethodNotAllowed => Self::Version,
            C::UnsupportedMediaType
            | C::RequestTimeout
            | C::IdempotencyConflict
            | C::DatabaseLocked
            | C::Internal
            | C::Unknown => Self::Failure,
        }
    }
}

/// Why a command failed, or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    /// None if the command has already reported it, or nobody reads the output.
    pub report: Option<Report>,
}

/// A failure as `--json` prints it; the same shape as the broker's errors.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    code: &'static str,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Failure {
    /// The command has already reported, step by step, what it could not do.
    pub const TOLD: Self = Self { exit: Exit::Failure, report: None };

    fn new(exit: Exit, code: &'static str, what: impl Into<String>, help: Option<String>) -> Self {
        Self { exit, report: Some(Report { code, message: what.into(), help, retry_after_ms: None }) }
    }

    /// A failure on this side: what happened, and what to do next.
    pub fn local(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Exit::Failure, "failed", what, Some(help.into()))
    }

    /// `doing` something to a file failed.
    pub fn io(doing: &str, path: &Path, error: &io::Error, help: impl Into<String>) -> Self {
        Self::local(format!("{doing} {}: {error}", path.display()), help)
    }

    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", what, Some("see `claude-peers --help`".to_owned()))
    }

    pub fn no_answer(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Exit::NoAnswer, "no_answer", what, Some(help.into()))
    }

    /// The user pressed Ctrl-C.
    pub fn interrupted(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Exit::Interrupted, "interrupted", what, Some(help.into()))
    }

    /// Standard output cannot be written.
    pub fn output(error: &io::Error) -> Self {
        // A reader that stops early is no failure: `claude-peers history | head`.
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { exit: Exit::Success, report: None },
            _ => Self::new(Exit::Failure, "output", format!("writing to standard output: {error}"), None),
        }
    }
}

impl From<wire::Error> for Failure {
    fn from(error: wire::Error) -> Self {
        let wire::Error { code, message, help, retry_after_ms } = error;
        Self { exit: code.into(), report: Some(Report { code: code.as_str(), message, help, retry_after_ms }) }
    }
}

impl From<InvalidSetting> for Failure {
    fn from(error: InvalidSetting) -> Self {
        Self::new(Exit::Usage, "invalid_setting", error.to_string(), Some(UNSET.to_owned()))
    }
}
