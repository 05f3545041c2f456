//! Git repositories, created by git itself and independent of the user's configuration.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Runs git in `directory`.
pub fn git(directory: &Path, arguments: &[&str]) {
    output(directory, arguments);
}

/// The same, and returns its output.
pub fn output(directory: &Path, arguments: &[&str]) -> String {
    let output = try_git(directory, arguments);
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The same, but it may fail.
pub fn try_git(directory: &Path, arguments: &[&str]) -> Output {
    let mut git = Command::new("git");
    git.args(["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]);
    git.args(arguments).current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    git.output().unwrap()
}

/// The git directory of a worktree or submodule.
pub fn git_dir(directory: &Path) -> PathBuf {
    output(directory, &["rev-parse", "--absolute-git-dir"]).trim().into()
}

/// Creates a repository with one commit on `main`.
pub fn repository(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    git(directory, &["init", "-q"]);
    std::fs::write(directory.join("README"), "hello\n").unwrap();
    git(directory, &["add", "."]);
    git(directory, &["commit", "-q", "-m", "first commit"]);
}
