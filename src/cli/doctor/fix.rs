//! What `--fix` does: each step is one that a person would be told to do without a second thought.

use super::{Finding, State};
use crate::cli::call::Call;
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::PathBuf,
};

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub enum Fix {
    /// A command.
    Run(Call),
    /// Removes the file of a socket that nobody listens on.
    RemoveSocket(PathBuf),
    /// Removes a unit's file that setup wrote and nobody changed.
    RemoveUnit(PathBuf),
    /// Sets a file's permissions.
    Mode(PathBuf, u32),
}

impl Fix {
    async fn apply(&self) -> Result<(), String> {
        let on = |doing: &str, path: &PathBuf, error: io::Error| format!("{doing} {}: {error}", path.display());
        match self {
            Self::Run(call) => call.run().await.map(drop).map_err(|error| error.to_string()),
            Self::RemoveSocket(path) => {
                let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
                if !is_socket || std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Ok(()); // it has changed since it was looked at
                }
                fs::remove_file(path).map_err(|error| on("removing", path, error))
            }
            Self::RemoveUnit(path) => fs::remove_file(path).map_err(|error| on("removing", path, error)),
            Self::Mode(path, mode) => {
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).map_err(|error| on("closing", path, error))
            }
        }
    }
}

/// A check that something was done about, and why a step failed.
pub struct Tried {
    check: &'static str,
    failed: Vec<String>,
}

/// Takes the steps of every finding in their order; what two findings ask for in the same words is done once.
pub async fn apply(findings: &[Finding]) -> Vec<Tried> {
    let mut done: Vec<(&[Fix], Vec<String>)> = Vec::new();
    let mut tried = Vec::new();
    for finding in findings.iter().filter(|finding| !finding.fixes.is_empty()) {
        let failed = match done.iter().find(|(fixes, _)| *fixes == finding.fixes.as_slice()) {
            Some((_, failed)) => failed.clone(),
            None => {
                let mut failed = Vec::new();
                for fix in &finding.fixes {
                    failed.extend(fix.apply().await.err());
                }
                done.push((&finding.fixes, failed.clone()));
                failed
            }
        };
        tried.push(Tried { check: finding.check, failed });
    }
    tried
}

/// Notes on the findings of the second look what became of the steps after the first.
pub fn note(findings: &mut [Finding], tried: Vec<Tried>) {
    for Tried { check, failed } in tried {
        for finding in findings.iter_mut().filter(|finding| finding.check == check) {
            finding.fixed = Some(matches!(finding.state, State::Ok | State::Skipped));
            for why in &failed {
                let help = finding.help.get_or_insert_default();
                *help = format!("{help}{}--fix could not: {why}", if help.is_empty() { "" } else { "\n" });
            }
        }
    }
}
