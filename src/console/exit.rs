//! How a command ends: its exit code, and the failure behind it. People's scripts rely on the numbers, so a published one keeps its
//! meaning.

use crate::{
    platform::settings::InvalidSetting,
    wire::{self, Code},
};
use serde::Serialize;
use std::{io, path::Path, process::ExitCode};

/// The exit codes, for `--help`.
pub const HELP: [(Exit, &str); 8] = [
    (Exit::Success, "success"),
    (Exit::Failure, "the command failed for another reason"),
    (Exit::Usage, "wrong usage, or a setting that cannot be used"),
    (Exit::Unreachable, "the broker cannot be reached"),
    (Exit::NotFound, "no such peer or message"),
    (Exit::Refused, "refused by a limit or a rule: rate, repeat, mailbox full, too large,\n     forbidden"),
    (Exit::Version, "the versions of this program and the broker do not match"),
    (Exit::NoAnswer, "no answer came in time, or none can come"),
];

pub const UNSET: &str = "correct or unset the variable";

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
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Code> for Exit {
    fn from(code: Code) -> Self {
        match code {
            Code::InvalidRequest | Code::InvalidId | Code::UnknownScope | Code::InvalidPath | Code::EmptyMessage => Self::Usage,
            Code::Unreachable | Code::Stopping | Code::DatabaseMoved => Self::Unreachable,
            Code::PeerNotFound | Code::AmbiguousPeer | Code::MessageNotFound => Self::NotFound,
            Code::TooLarge
            | Code::Forbidden
            | Code::Unauthorized
            | Code::RateLimited
            | Code::RepeatLimited
            | Code::MailboxFull
            | Code::NoMailbox
            | Code::Busy => Self::Refused,
            // The broker does not know a path or method of this program: their versions differ.
            Code::VersionMismatch | Code::NotFound | Code::MethodNotAllowed => Self::Version,
            Code::UnsupportedMediaType | Code::RequestTimeout | Code::IdempotencyConflict | Code::Internal | Code::Unknown => {
                Self::Failure
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The broker refuses, or it cannot be reached.
    #[error(transparent)]
    Protocol(#[from] wire::Error),
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Local(#[from] Problem),
    #[error(transparent)]
    NoAnswer(Problem),
    /// The command has already reported, step by step, what it could not do.
    #[error("not everything could be done")]
    Told,
    #[error("writing to standard output: {0}")]
    Output(#[source] io::Error),
}

/// What happened, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {help}")]
pub struct Problem {
    pub what: String,
    pub help: String,
}

impl Problem {
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }

    /// `doing` something to a file failed.
    pub fn io(doing: &str, path: &Path, error: &io::Error, help: impl Into<String>) -> Self {
        Self::new(format!("{doing} {}: {error}", path.display()), help)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let Report { message, help, .. } = failure.report();
        Self { what: message, help: help.unwrap_or_default() }
    }
}

impl From<InvalidSetting> for Problem {
    fn from(error: InvalidSetting) -> Self {
        Self::new(error.to_string(), UNSET)
    }
}

/// A failure as `--json` prints it; the same shape as the broker's errors.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    code: serde_json::Value,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure on this side: what happened, and what to do next.
    pub fn local(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Local(Problem::new(what, help))
    }

    pub fn exit(&self) -> Exit {
        match self {
            Self::Protocol(error) => error.code.into(),
            Self::NoAnswer(_) => Exit::NoAnswer,
            Self::Setting(_) | Self::Usage(_) => Exit::Usage,
            // The reader has seen enough: `claude-peers history | head` is no failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Self::Local(_) | Self::Told | Self::Output(_) => Exit::Failure,
        }
    }

    pub fn report(&self) -> Report {
        let (code, help) = match self {
            Self::Protocol(wire::Error { code, message, help, retry_after_ms }) => {
                let (code, message, help) = (serde_json::json!(code), message.clone(), help.clone());
                return Report { code, message, help, retry_after_ms: *retry_after_ms };
            }
            Self::Setting(_) => ("invalid_setting", Some(UNSET)),
            Self::Usage(_) => ("usage", Some("see `claude-peers --help`")),
            Self::Local(problem) => ("failed", Some(&*problem.help)),
            Self::NoAnswer(problem) => ("no_answer", Some(&*problem.help)),
            Self::Told => ("failed", None),
            Self::Output(_) => ("output", None),
        };
        let message = match self {
            Self::Local(problem) | Self::NoAnswer(problem) => problem.what.clone(),
            _ => self.to_string(),
        };
        Report { code: code.into(), message, help: help.map(str::to_owned), retry_after_ms: None }
    }
}
