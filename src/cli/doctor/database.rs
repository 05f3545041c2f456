//! The database, as the broker's program finds it: this one links no SQLite.

use super::{Finding, fix::Fix, scene::Scene};
use crate::{
    cli::status::size,
    wire::{DatabaseReport, DatabaseState},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{process::Command, time::timeout};

const DATABASE: &str = "database";
/// How long the look may take: a database of some gigabytes on a slow disk.
const PATIENCE: Duration = Duration::from_secs(120);

/// What `claude-peersd --check-database` says.
#[derive(Debug)]
pub enum Looked {
    /// How the database is.
    Report(DatabaseReport),
    /// Settings keep it from looking: its words.
    Setting(String),
    /// There is no `claude-peersd`.
    NoProgram,
    /// It gives no report: why.
    Failed(String),
}

/// Has the broker's program look at the database that the broker uses, or would use.
pub async fn look(scene: &Scene) -> Looked {
    let Some(daemon) = scene.daemon() else { return Looked::NoProgram };
    let path = match (scene.broker(), &scene.database) {
        (Some(broker), _) => PathBuf::from(&broker.database.path),
        (None, Ok(path)) => path.clone(),
        (None, Err(error)) => return Looked::Setting(error.to_string()),
    };
    // Not a `Call`: what it prints counts whatever its exit code.
    let mut command = Command::new(&daemon);
    command.arg("--check-database").env("CLAUDE_PEERS_DB", &path).stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Looked::Failed(format!("{} cannot be run: {error}", daemon.display())),
        Err(_) => return Looked::Failed(format!("{path:?} could not be looked through within {} s", PATIENCE.as_secs())),
    };
    if let Ok(report) = serde_json::from_slice(&output.stdout) {
        return Looked::Report(report);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default().trim_start_matches("claude-peersd: ").to_owned();
    if said.contains("cannot be used; allowed") {
        return Looked::Setting(said);
    }
    Looked::Failed(format!("{} cannot look at it: {said} (an older version?)", daemon.display()))
}

/// The database, and what became of an earlier one.
pub fn check(scene: &Scene) -> Vec<Finding> {
    let finding = match &scene.looked {
        Looked::Report(report) => judge(report),
        Looked::Setting(_) => Finding::skipped(DATABASE, "a setting cannot be used: see settings"),
        Looked::NoProgram => Finding::failed(
            DATABASE,
            "claude-peersd was not found: not beside this program, not on PATH, and no unit names it",
            "install all three programs together",
        ),
        Looked::Failed(why) => Finding::warning(DATABASE, why.clone(), "install all three programs in the same version"),
    };
    let notices = scene.broker().into_iter().flat_map(|broker| &broker.notices).filter(|notice| notice.contains("damaged"));
    let notices: Vec<_> = notices.cloned().collect();
    let mut findings = vec![finding];
    match (notices.as_slice(), &scene.looked) {
        ([], Looked::Report(report)) => findings.extend(aside(Path::new(&report.path))),
        (notices, _) => findings.extend(notices.iter().map(|notice| {
            Finding::warning(DATABASE, notice.clone(), "keep the file as long as you miss a message in it; then remove it")
        })),
    }
    findings
}

fn judge(report: &DatabaseReport) -> Finding {
    let DatabaseReport { path, state, bytes, .. } = report;
    let problems = report.problems.join("; ");
    match state {
        DatabaseState::Missing => Finding::ok(DATABASE, format!("{path} is not there yet; the broker makes it when it starts")),
        DatabaseState::TooNew => Finding::failed(
            DATABASE,
            format!("{path} was written by a newer version of claude-peers: {problems}; it is left untouched"),
            "upgrade claude-peers, or set CLAUDE_PEERS_DB to another file",
        ),
        DatabaseState::Damaged => Finding::failed(
            DATABASE,
            format!("{path} is damaged: {problems}"),
            format!(
                "stop the broker (`claude-peers stop`) and start it again: it sets aside what it finds damaged, and saves what can be \
                 read; if this stays, stop it and move the file away yourself (`mv {path} {path}.old`)"
            ),
        ),
        DatabaseState::NotWritable => Finding::failed(
            DATABASE,
            format!("{path} cannot be written by you, so the broker cannot work: {problems}"),
            format!(
                "make the file and its folder yours and writable (`ls -ld {path} {}`), or set CLAUDE_PEERS_DB",
                Path::new(path).parent().unwrap_or(Path::new("/")).display()
            ),
        ),
        DatabaseState::Unreadable => Finding::failed(
            DATABASE,
            format!("{path} cannot be read: {problems}"),
            "make it a file of yours that you can read and write, or set CLAUDE_PEERS_DB",
        ),
        DatabaseState::Ok => match open_to_others(report.mode.as_deref()) {
            Some(mode) => Finding::warning(
                DATABASE,
                format!("{path} may be read by others (mode {mode}): it holds messages"),
                format!("chmod 0600 {path}"),
            )
            .fixes([Fix::Mode(PathBuf::from(path), 0o600)]),
            None => Finding::ok(
                DATABASE,
                format!("{path}, sound, {}, mode {}", size(*bytes), report.mode.as_deref().unwrap_or("unknown")),
            ),
        },
    }
}

fn open_to_others(mode: Option<&str>) -> Option<&str> {
    mode.filter(|mode| u32::from_str_radix(mode, 8).is_ok_and(|bits| bits & 0o077 != 0))
}

/// Damaged databases that were set aside earlier.
fn aside(path: &Path) -> Option<Finding> {
    let beginning = format!("{}.damaged-", path.file_name()?.to_string_lossy());
    let names = fs::read_dir(path.parent()?).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> =
        names.filter(|name| name.starts_with(&beginning) && !name.ends_with("-wal") && !name.ends_with("-shm")).collect();
    names.sort();
    if names.is_empty() {
        return None;
    }
    let folder = path.parent()?.display();
    Some(Finding::warning(
        DATABASE,
        format!("a damaged database was set aside earlier in {folder}: {}", names.join(", ")),
        "keep it as long as you miss a message in it; then remove it",
    ))
}
