//! What git says about a directory, read from its files without a `git` process: it costs microseconds and can be asked on
//! every list. Follows gitrepository-layout(5): `.git` is a directory, or a file that names one (`gitdir: …`), and a
//! worktree's directory names the common one in `commondir`.

use crate::wire::Git;
use std::{fs, io::Read, path::Path};

/// Largest file that is read here (`HEAD`, `commondir`, `.git`): git writes one line into each.
const MAX_FILE: u64 = 8 * 1024;

/// The repository that `directory` lies in, if it lies in one.
pub fn discover(directory: &Path) -> Option<Git> {
    directory.ancestors().find_map(|top| {
        let dot_git = top.join(".git");
        let meta = fs::metadata(&dot_git).ok();
        if meta.as_ref().is_some_and(fs::Metadata::is_dir) {
            facts(&dot_git, top)
        } else if meta.is_some() {
            let line = first_line(&dot_git)?;
            facts(&top.join(line.strip_prefix("gitdir:")?.trim()), top)
        } else if is_git_dir(top) {
            facts(top, top) // a bare repository, or the inside of a `.git`
        } else {
            None
        }
    })
}

/// The branch that the `HEAD` file names; none when the head is detached or cannot be read.
pub fn branch(head: &Path) -> Option<String> {
    let line = first_line(head)?;
    let name = line.strip_prefix("ref:")?.trim().strip_prefix("refs/heads/")?;
    // `.invalid` stands in HEAD where the reftable format keeps the real one elsewhere.
    (!name.is_empty() && name != ".invalid").then(|| name.to_owned())
}

fn facts(git_dir: &Path, top: &Path) -> Option<Git> {
    let git_dir = fs::canonicalize(git_dir).ok()?;
    let common = match first_line(&git_dir.join("commondir")) {
        Some(common) => fs::canonicalize(git_dir.join(common)).ok()?,
        None => git_dir.clone(),
    };
    let head = git_dir.join("HEAD");
    if !head.is_file() {
        return None;
    }
    Some(Git {
        repo: short_name(&common, top),
        branch: branch(&head),
        head: head.to_str()?.to_owned(),
        common_dir: common.to_str()?.to_owned(),
    })
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

fn is_git_dir(path: &Path) -> bool {
    path.join("HEAD").is_file() && path.join("objects").is_dir() && path.join("refs").is_dir()
}

fn first_line(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MAX_FILE).read_to_string(&mut text).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}
