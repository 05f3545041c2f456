//! The database, as the broker's program finds it: this one links no SQLite.

use super::{Finding, failed, fix::Fix, ok, scene::Scene, skipped, warning};
use crate::{
    console::out::size,
    platform::call::Call,
    wire::{DatabaseReport, DatabaseState},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long the look may take: a database of some gigabytes on a slow disk.
const PATIENCE: Duration = Duration::from_secs(120);

/// What `claude-peersd --check-database` says.
pub enum Looked {
    Report(DatabaseReport),
    /// Settings keep it from looking: its words.
    Setting(String),
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
    let place = daemon.display();
    let call = Call::new(place.to_string(), &daemon, ["--check-database"], PATIENCE).env("CLAUDE_PEERS_DB", &path);
    // What it prints counts whatever its exit code.
    let output = match call.output().await {
        Ok(output) => output,
        Err(error) => return Looked::Failed(format!("{path:?} cannot be looked through: {error}")),
    };
    if let Ok(report) = serde_json::from_slice(&output.stdout) {
        return Looked::Report(report);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default().trim_start_matches("claude-peersd: ").to_owned();
    if said.contains("cannot be used; allowed") {
        return Looked::Setting(said);
    }
    Looked::Failed(format!("{place} cannot look at it: {said} (an older version?)"))
}

/// The database, and what became of an earlier one.
pub fn check(scene: &Scene) -> Vec<Finding> {
    const KEEP: &str = "keep the file as long as you miss a message in it; then remove it";
    let mut findings = vec![match &scene.looked {
        Looked::Report(report) => judge(report),
        Looked::Setting(_) => skipped("a setting cannot be used: see settings"),
        Looked::NoProgram => failed(
            "claude-peersd was not found: not beside this program, not on PATH, and no unit names it",
            "install all three programs together",
        ),
        Looked::Failed(why) => warning(why, "install all three programs in the same version"),
    }];
    let notices = scene.broker().into_iter().flat_map(|broker| &broker.notices).filter(|notice| notice.contains("damaged"));
    findings.extend(notices.map(|notice| warning(notice, KEEP)));
    match &scene.looked {
        Looked::Report(report) if findings.len() == 1 => findings.extend(aside(Path::new(&report.path))),
        _ => {}
    }
    findings
}

fn judge(report: &DatabaseReport) -> Finding {
    let DatabaseReport { path, state, bytes, mode, .. } = report;
    let problems = report.problems.join("; ");
    match state {
        DatabaseState::Missing => ok(format!("{path} is not there yet; the broker makes it when it starts")),
        DatabaseState::TooNew => failed(
            format!("{path} was written by a newer version of claude-peers: {problems}; it is left untouched"),
            "upgrade claude-peers, or set CLAUDE_PEERS_DB to another file",
        ),
        DatabaseState::Foreign => failed(
            format!("{path} is no database of claude-peers; it is left untouched"),
            "set CLAUDE_PEERS_DB to another file, or move this one away",
        ),
        DatabaseState::Damaged => failed(
            format!("{path} is damaged: {problems}"),
            format!(
                "stop the broker (`claude-peers stop`) and start it again: it sets aside what it finds damaged, and saves what can be \
                 read; if this stays, stop it and move the file away yourself (`mv {path} {path}.old`)"
            ),
        ),
        DatabaseState::NotWritable => {
            let folder = Path::new(path).parent().unwrap_or(Path::new("/")).display();
            failed(
                format!("{path} cannot be written by you, so the broker cannot work: {problems}"),
                format!("make the file and its folder yours and writable (`ls -ld {path} {folder}`), or set CLAUDE_PEERS_DB"),
            )
        }
        DatabaseState::Unreadable => failed(
            format!("{path} cannot be read: {problems}"),
            "make it a file of yours that you can read and write, or set CLAUDE_PEERS_DB",
        ),
        DatabaseState::Sound => match open_to_others(mode.as_deref()) {
            Some(mode) => {
                let what = format!("{path} may be read by others (mode {mode}): it holds messages");
                warning(what, format!("chmod 0600 {path}")).fixes([Fix::Mode(PathBuf::from(path), 0o600)])
            }
            None => ok(format!("{path}, sound, {}, mode {}", size(*bytes), mode.as_deref().unwrap_or("unknown"))),
        },
    }
}

fn open_to_others(mode: Option<&str>) -> Option<&str> {
    mode.filter(|mode| u32::from_str_radix(mode, 8).is_ok_and(|bits| bits & 0o077 != 0))
}

fn aside(path: &Path) -> Option<Finding> {
    let beginning = format!("{}.damaged-", path.file_name()?.to_string_lossy());
    let names = fs::read_dir(path.parent()?).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names
        .filter(|name| name.starts_with(&beginning) && !["-wal", "-shm", "-journal"].iter().any(|end| name.ends_with(end)))
        .collect();
    names.sort();
    let what = format!("a damaged database was set aside earlier in {}: {}", path.parent()?.display(), names.join(", "));
    (!names.is_empty()).then(|| warning(what, "keep it as long as you miss a message in it; then remove it"))
}
