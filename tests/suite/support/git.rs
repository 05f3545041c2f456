//! Git repositories, created by git itself and independent of the user's configuration.

use std::{path::Path, process::Command};

/// Runs git in `directory`.
pub fn git(directory: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Creates a repository with one commit on `main`.
pub fn repository(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    git(directory, &["init", "-q"]);
    std::fs::write(directory.join("README"), "hello\n").unwrap();
    git(directory, &["add", "."]);
    git(directory, &["commit", "-q", "-m", "first commit"]);
}
