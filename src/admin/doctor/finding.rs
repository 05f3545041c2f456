//! A check's finding: a verdict with help, and the steps of `--fix`. These are only steps that are obviously safe.

use crate::{console::Tone, platform::call::Call};
use serde::Serialize;
use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::PathBuf,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warning,
    Failed,
    Skipped,
}

impl Verdict {
    pub const ALL: [Self; 4] = [Self::Ok, Self::Warning, Self::Failed, Self::Skipped];

    pub fn sign(self) -> (&'static str, Tone) {
        match self {
            Self::Ok => ("ok", Tone::Good),
            Self::Warning => ("warning", Tone::Warn),
            Self::Failed => ("FAILED", Tone::Bad),
            Self::Skipped => ("skipped", Tone::Dim),
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The name of the check, added by the report.
    pub check: &'static str,
    pub state: Verdict,
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Whether all is well after `--fix` has tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed: Option<bool>,
    /// The steps of `--fix`.
    #[serde(skip)]
    pub fixes: Vec<Fix>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Fix {
    Run(Call),
    /// Removes the file of a socket, if still no process listens on the socket.
    RemoveSocket(PathBuf),
    /// Removes a unit file that setup wrote and nobody changed.
    RemoveUnit(PathBuf),
    Mode(PathBuf, u32),
}

impl Finding {
    fn new(state: Verdict, what: impl Into<String>, help: Option<String>) -> Self {
        Self { check: "", state, what: what.into(), help, fixed: None, fixes: Vec::new() }
    }

    pub fn fixes(mut self, fixes: impl IntoIterator<Item = Fix>) -> Self {
        self.fixes.extend(fixes);
        self
    }
}

pub fn ok(what: impl Into<String>) -> Finding {
    Finding::new(Verdict::Ok, what, None)
}

pub fn skipped(what: impl Into<String>) -> Finding {
    Finding::new(Verdict::Skipped, what, None)
}

pub fn warning(what: impl Into<String>, help: impl Into<String>) -> Finding {
    Finding::new(Verdict::Warning, what, Some(help.into()))
}

pub fn failed(what: impl Into<String>, help: impl Into<String>) -> Finding {
    Finding::new(Verdict::Failed, what, Some(help.into()))
}

impl Fix {
    pub async fn apply(&self) -> Result<(), String> {
        let (doing, path, done) = match self {
            Self::Run(call) => return call.run().await.map(drop).map_err(|error| error.to_string()),
            Self::RemoveSocket(path) => {
                let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
                if !is_socket || UnixStream::connect(path).is_ok() {
                    return Ok(());
                }
                ("removing", path, fs::remove_file(path))
            }
            Self::RemoveUnit(path) => ("removing", path, fs::remove_file(path)),
            Self::Mode(path, mode) => ("closing", path, fs::set_permissions(path, Permissions::from_mode(*mode))),
        };
        done.map_err(|error| format!("{doing} {}: {error}", path.display()))
    }
}
