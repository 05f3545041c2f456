//! The steps of `--fix`: only those that a person would take without a second thought.

use super::{Finding, Verdict};
use crate::platform::call::Call;
use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::PathBuf,
};

#[derive(Debug, Clone, PartialEq)]
pub enum Fix {
    Run(Call),
    /// Removes the file of a socket, if still no process listens on it.
    RemoveSocket(PathBuf),
    /// Removes the file of a unit that setup wrote and nobody changed.
    RemoveUnit(PathBuf),
    Mode(PathBuf, u32),
}

impl Fix {
    async fn apply(&self) -> Result<(), String> {
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

/// Applies the fixes of all findings in their order, and equal lists of fixes once. Gives the errors by check.
pub async fn apply(findings: &[Finding]) -> Vec<(&'static str, Vec<String>)> {
    let mut tried: Vec<(&Finding, Vec<String>)> = Vec::new();
    for finding in findings.iter().filter(|finding| !finding.fixes.is_empty()) {
        let done = tried.iter().find(|(done, _)| done.fixes == finding.fixes);
        let mut errors = done.map(|(_, errors)| errors.clone()).unwrap_or_default();
        for fix in finding.fixes.iter().filter(|_| done.is_none()) {
            errors.extend(fix.apply().await.err());
        }
        tried.push((finding, errors));
    }
    tried.into_iter().map(|(finding, errors)| (finding.check, errors)).collect()
}

/// Notes in the findings after the fixes whether these helped.
pub fn note(findings: &mut [Finding], tried: Vec<(&'static str, Vec<String>)>) {
    for (check, errors) in tried {
        for finding in findings.iter_mut().filter(|finding| finding.check == check) {
            finding.fixed = Some(matches!(finding.state, Verdict::Ok | Verdict::Skipped));
            let errors = errors.iter().map(|error| format!("--fix failed: {error}"));
            let help: Vec<_> = finding.help.take().into_iter().chain(errors).collect();
            finding.help = Some(help.join("\n")).filter(|help| !help.is_empty());
        }
    }
}
