//! The database. The broker's program checks it, because this program has no SQLite.

use super::finding::{Finding, Fix, failed, ok, skipped, warning};
use crate::{
    console::size,
    platform::{
        call::Call,
        settings::{self, InvalidSetting},
    },
    wire::{BrokerExit, BrokerStatus, DatabaseReport, DatabaseState},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// The time limit of a check: the database may have some gigabytes on a slow disk.
const PATIENCE: Duration = Duration::from_secs(120);
const KEEP: &str = "keep it as long as you miss a message that was in it; then remove it";

/// Lets the broker's program `daemon` check the database.
pub async fn look(daemon: Option<PathBuf>, path: &Result<PathBuf, InvalidSetting>) -> Result<DatabaseReport, Finding> {
    let setting = || skipped("a setting cannot be used: see settings");
    let Some(daemon) = daemon else {
        return Err(failed(
            "claude-peersd was not found: it is neither beside this program nor on PATH, and no unit names it",
            "install all three programs together",
        ));
    };
    let path = path.as_ref().map_err(|_| setting())?;
    let place = daemon.display();
    let unchecked = |why: String| warning(why, "install all three programs in the same version");
    let call = Call::new(place.to_string(), &daemon, ["--check-database"], PATIENCE).env("CLAUDE_PEERS_DB", path);
    let output = call.output().await.map_err(|error| unchecked(format!("{path:?} cannot be checked: {error}")))?;
    // The exit code says the same as the report.
    if let Ok(report) = serde_json::from_slice(&output.stdout) {
        return Ok(report);
    }
    if output.status.code() == Some(BrokerExit::InvalidSetting as i32) && settings::ALL.iter().any(|one| one.set().is_err()) {
        return Err(setting());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default().trim_start_matches("claude-peersd: ");
    Err(unchecked(format!("{place} cannot check it: {said} (an older version?)")))
}

/// Reports on the database and on damaged ones that the broker has set aside.
pub fn check(report: &Result<DatabaseReport, Finding>, broker: Option<&BrokerStatus>) -> Vec<Finding> {
    let mut findings = vec![report.as_ref().map_or_else(Clone::clone, judge)];
    let notices = broker.into_iter().flat_map(|broker| &broker.notices).filter(|notice| notice.contains("damaged"));
    findings.extend(notices.map(|notice| warning(notice, KEEP)));
    if let (Ok(report), 1) = (report, findings.len()) {
        findings.extend(aside(Path::new(&report.path)));
    }
    findings
}

fn judge(report: &DatabaseReport) -> Finding {
    let DatabaseReport { path, state, bytes, mode, .. } = report;
    let problems = report.problems.join("; ");
    let (what, help) = match state {
        DatabaseState::Sound => return sound(path, *bytes, mode.as_deref()),
        DatabaseState::Missing => return ok(format!("{path} is not there yet; the broker makes it when it starts")),
        DatabaseState::TooNew => (
            format!("{path} was written by a newer version of claude-peers: {problems}; it stays as it is"),
            "upgrade claude-peers, or set CLAUDE_PEERS_DB to another file".to_owned(),
        ),
        DatabaseState::Foreign => (
            format!("{path} is no database of claude-peers; it is left untouched"),
            "set CLAUDE_PEERS_DB to another file, or move this one away".to_owned(),
        ),
        DatabaseState::Damaged => (
            format!("{path} is damaged: {problems}"),
            format!(
                "stop the broker (`claude-peers stop`) and start it again: it sets a damaged database aside, and saves what can be \
                 read; if it does not, stop it and move the file away yourself (`mv {path} {path}.old`)"
            ),
        ),
        DatabaseState::NotWritable => {
            let folder = Path::new(path).parent().unwrap_or(Path::new("/")).display();
            let help = format!(
                "make the file, those beside it and the folder yours and writable (`ls -ld {path}* {folder}`), or set CLAUDE_PEERS_DB"
            );
            (format!("{path} cannot be written by you, so the broker cannot work: {problems}"), help)
        }
        DatabaseState::NotShared => (
            format!("{path} is on a file system that has no shared memory, so the broker cannot work: {problems}"),
            "set CLAUDE_PEERS_DB to a file on a local disk".to_owned(),
        ),
        DatabaseState::Unreadable => (
            format!("{path} cannot be read: {problems}"),
            "make yourself its owner, make it readable and writable, or set CLAUDE_PEERS_DB".to_owned(),
        ),
    };
    failed(what, help)
}

fn sound(path: &str, bytes: u64, mode: Option<&str>) -> Finding {
    let Some(mode) = mode.filter(|mode| u32::from_str_radix(mode, 8).is_ok_and(|bits| bits & 0o077 != 0)) else {
        return ok(format!("{path}, sound, {}, mode {}", size(bytes), mode.unwrap_or("unknown")));
    };
    let what = format!("{path} may be read by others (mode {mode}), and it holds messages");
    warning(what, format!("chmod 0600 {path}")).fixes([Fix::Mode(PathBuf::from(path), 0o600)])
}

fn aside(path: &Path) -> Option<Finding> {
    let (folder, beginning) = (path.parent()?, format!("{}.damaged-", path.file_name()?.to_string_lossy()));
    let names = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_aside = |name: &String| name.starts_with(&beginning) && !name.ends_with("-wal") && !name.ends_with("-shm");
    let mut names: Vec<_> = names.filter(is_aside).collect();
    names.sort();
    let what = format!("a damaged database was set aside earlier in {}: {}", folder.display(), names.join(", "));
    (!names.is_empty()).then(|| warning(what, KEEP))
}
