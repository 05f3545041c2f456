//! How a command ends: the exit codes, the one place that gives them a meaning, and the failure behind one.
//!
//! The numbers are a contract with people's scripts: one that is published keeps its meaning.

use crate::{
    platform::settings::InvalidSetting,
    wire::{self, Code},
};
use serde::Serialize;
use std::{io, path::Path, process::ExitCode};

pub const HELP: &str = "  0  success
  1  the command failed for another reason
  2  wrong usage, or a setting that cannot be used
  3  the broker cannot be reached
  4  no such peer or message
  5  refused by a limit or a rule: rate, repeat, mailbox full, too large,
     forbidden
  6  the versions of this program and the broker do not fit together
  7  no answer came in time, or none can come";

pub const UNSET: &str = "correct or unset the variable";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Success = 0,
    /// It did not, for a reason that no other code names.
    Failure = 1,
    Usage = 2,
    Unreachable = 3,
    NotFound = 4,
    Refused = 5,
    /// Program and broker have no protocol in common.
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
            // A path or method that this program knows and the broker does not: they are of different versions.
            Code::VersionMismatch | Code::NotFound | Code::MethodNotAllowed => Self::Version,
            Code::UnsupportedMediaType | Code::RequestTimeout | Code::IdempotencyConflict | Code::Internal | Code::Unknown => {
                Self::Failure
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The broker, or the way to it, says no.
    #[error(transparent)]
    Protocol(#[from] wire::Error),
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Local(#[from] Problem),
    #[error("{what}; {help}")]
    NoAnswer { what: String, help: &'static str },
    /// The command has said itself, step by step, what it could not do.
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

    /// `doing` something with a file failed.
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
#[derive(Debug, PartialEq, Serialize)]
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
            Self::NoAnswer { .. } => Exit::NoAnswer,
            Self::Setting(_) | Self::Usage(_) => Exit::Usage,
            Self::Local(_) | Self::Told => Exit::Failure,
            // Whoever read our output has seen enough: `claude-peers history | head` is no failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Self::Output(_) => Exit::Failure,
        }
    }

    pub fn report(&self) -> Report {
        let report = |code: &str, message: String, help: Option<&str>| Report {
            code: code.into(),
            message,
            help: help.map(str::to_owned),
            retry_after_ms: None,
        };
        match self {
            Self::Protocol(error) => Report {
                code: serde_json::json!(error.code),
                message: error.message.clone(),
                help: error.help.clone(),
                retry_after_ms: error.retry_after_ms,
            },
            Self::Setting(error) => report("invalid_setting", error.to_string(), Some(UNSET)),
            Self::Usage(message) => report("usage", message.clone(), Some("`claude-peers --help` shows what is understood")),
            Self::Local(Problem { what, help }) => report("failed", what.clone(), Some(help)),
            Self::NoAnswer { what, help } => report("no_answer", what.clone(), Some(help)),
            Self::Told => report("failed", self.to_string(), None),
            Self::Output(_) => report("output", self.to_string(), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_documented() {
        let all = [
            Exit::Success,
            Exit::Failure,
            Exit::Usage,
            Exit::Unreachable,
            Exit::NotFound,
            Exit::Refused,
            Exit::Version,
            Exit::NoAnswer,
        ];
        let documented = HELP.lines().filter_map(|line| line.strip_prefix("  ")?.split_once("  ")?.0.parse().ok());
        assert_eq!(documented.collect::<Vec<u8>>(), all.map(|exit| exit as u8));
    }

    #[test]
    fn a_reader_that_leaves_early_is_no_failure() {
        assert_eq!(Failure::Output(io::ErrorKind::BrokenPipe.into()).exit(), Exit::Success);
        assert_eq!(Failure::Output(io::ErrorKind::StorageFull.into()).exit(), Exit::Failure);
    }

    #[test]
    fn a_report_has_the_shape_of_the_brokers_errors() {
        let error = wire::Error::new(Code::RateLimited, "too many").help("wait").retry_after(std::time::Duration::from_secs(1));
        let report = serde_json::to_value(Failure::from(error.clone()).report()).expect("JSON");
        assert_eq!(report, serde_json::to_value(error).expect("JSON"));
    }
}
