//! What `--fix` does: each step is one that a person would be told to do without a second thought.

use super::{Finding, State};
use crate::platform::call::Call;
use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::PathBuf,
};

#[derive(Debug, Clone, PartialEq)]
pub enum Fix {
    Run(Call),
    /// Removes the file of a socket that nobody listens on.
    RemoveSocket(PathBuf),
    /// Removes a unit's file that setup wrote and nobody changed.
    RemoveUnit(PathBuf),
    Mode(PathBuf, u32),
}

impl Fix {
    async fn apply(&self) -> Result<(), String> {
        let done = match self {
            Self::Run(call) => return call.run().await.map(drop).map_err(|error| error.to_string()),
            Self::RemoveSocket(path) => {
                let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
                if !is_socket || std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Ok(()); // it has changed since it was looked at
                }
                fs::remove_file(path).map_err(|error| ("removing", path, error))
            }
            Self::RemoveUnit(path) => fs::remove_file(path).map_err(|error| ("removing", path, error)),
            Self::Mode(path, mode) => {
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).map_err(|error| ("closing", path, error))
            }
        };
        done.map_err(|(doing, path, error)| format!("{doing} {}: {error}", path.display()))
    }
}

/// Takes the steps of every finding in their order; what two findings ask for in the same words is done once. Gives the checks that
/// something was done about, and why steps failed.
pub async fn apply(findings: &[Finding]) -> Vec<(&'static str, Vec<String>)> {
    let mut tried: Vec<(&Finding, Vec<String>)> = Vec::new();
    for finding in findings.iter().filter(|finding| !finding.fixes.is_empty()) {
        let done = tried.iter().find(|(done, _)| done.fixes == finding.fixes);
        let mut failed = done.map(|(_, failed)| failed.clone()).unwrap_or_default();
        for fix in finding.fixes.iter().filter(|_| done.is_none()) {
            failed.extend(fix.apply().await.err());
        }
        tried.push((finding, failed));
    }
    tried.into_iter().map(|(finding, failed)| (finding.check, failed)).collect()
}

/// Notes on the findings of the second look what became of the steps after the first.
pub fn note(findings: &mut [Finding], tried: Vec<(&'static str, Vec<String>)>) {
    for (check, failed) in tried {
        for finding in findings.iter_mut().filter(|finding| finding.check == check) {
            finding.fixed = Some(matches!(finding.state, State::Ok | State::Skipped));
            let said = finding.help.take().into_iter();
            let help: Vec<_> = said.chain(failed.iter().map(|why| format!("--fix could not: {why}"))).collect();
            finding.help = Some(help.join("\n")).filter(|help| !help.is_empty());
        }
    }
}
