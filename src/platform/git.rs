//! Git's facts about a directory, read from its files without a `git` process. This costs microseconds, so every list can ask.
//! Follows gitrepository-layout(5): `.git` is a directory, or a file that names one (`gitdir: …`). A worktree's directory names
//! the common one in `commondir`.
//!
//! Like git (`safe.directory`), this ignores repositories of other users. Names from a repository are made printable, since
//! models read them. Reading can hang on a dead network drive, so it needs its own thread.

use super::{files, reftable};
use crate::wire::{Git, text::printable_line};
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// Largest file read here (`HEAD`, `commondir`, `.git`); git writes one line into each.
const MAX_FILE: u64 = 8 * 1024;
/// Longest name of a branch, in bytes: git cannot store a longer one in a file. A made-up one would not fit into what other machines are told.
const LONGEST_BRANCH: usize = 4_096;
/// The target in `HEAD` if the real one is in a reftable.
const REFTABLE_STUB: &str = "refs/heads/.invalid";

/// A repository, as found from a directory inside it.
struct Found<'a> {
    git_dir: PathBuf,
    /// The directory that all its worktrees share.
    common: PathBuf,
    /// The top of its files; for a bare repository, the repository itself.
    top: &'a Path,
}

/// The repository that contains `directory`, if this user owns it.
pub fn discover(directory: &Path) -> Option<Git> {
    let found = find(directory)?;
    let (head, common) = (fs::canonicalize(found.git_dir).ok()?.join("HEAD"), fs::canonicalize(found.common).ok()?);
    Some(Git {
        repo: printable_line(&short_name(&common, found.top)).into_owned(),
        branch: branch(&head),
        head: head.to_str()?.to_owned(),
        common_dir: common.to_str()?.to_owned(),
    })
}

/// The top of the worktree that contains `directory`.
pub fn top(directory: &Path) -> Option<PathBuf> {
    find(directory).filter(|found| found.git_dir != found.top).map(|found| found.top.to_owned())
}

/// The branch in this user's `HEAD` file; none if the head is detached or unreadable.
pub fn branch(head: &Path) -> Option<String> {
    let file = files::read_own(head, MAX_FILE).ok()?;
    let target = match line(&file)?.strip_prefix("ref:")?.trim() {
        REFTABLE_STUB => reftable::head(&head.with_file_name("reftable"))?,
        target => target.to_owned(),
    };
    let name = target.strip_prefix("refs/heads/")?;
    let name = printable_line(name);
    (1..=LONGEST_BRANCH).contains(&name.len()).then(|| name.into_owned())
}

/// The nearest repository around `directory`; none if another user owns it. Like git, this looks no further.
fn find(directory: &Path) -> Option<Found<'_>> {
    for top in directory.ancestors() {
        let dot_git = top.join(".git");
        let git_dir = if dot_git.is_file() {
            top.join(line(&files::read_own(&dot_git, MAX_FILE).ok()?)?.strip_prefix("gitdir:")?.trim())
        } else if dot_git.join("HEAD").is_file() {
            dot_git
        } else if is_bare(top) {
            top.to_owned()
        } else {
            continue;
        };
        let is_usable = files::owns(top) && files::owns(&git_dir) && git_dir.join("HEAD").is_file();
        let common = common(&git_dir).filter(|_| is_usable)?;
        return Some(Found { git_dir, common, top });
    }
    None
}

fn common(git_dir: &Path) -> Option<PathBuf> {
    match files::read_own(&git_dir.join("commondir"), MAX_FILE) {
        Ok(common) => Some(git_dir.join(line(&common)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Some(git_dir.to_owned()),
        Err(_) => None,
    }
}

/// Whether this is a bare repository, or the inside of a `.git`.
fn is_bare(path: &Path) -> bool {
    path.join("HEAD").is_file() && path.join("objects").is_dir() && path.join("refs").is_dir()
}

/// `…/poker-engine/.git` and `…/poker-engine.git` are both `poker-engine`; a submodule, whose git directory lies elsewhere,
/// is named by the top of its files.
fn short_name(common: &Path, top: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let common_name = name(common).unwrap_or_default();
    if common_name.starts_with('.') {
        common.parent().and_then(name).unwrap_or(common_name)
    } else if let Some(bare) = common_name.strip_suffix(".git") {
        bare.to_owned()
    } else {
        name(top).unwrap_or(common_name)
    }
}

fn line(file: &[u8]) -> Option<&str> {
    std::str::from_utf8(file).ok()?.lines().next().map(str::trim).filter(|line| !line.is_empty())
}
