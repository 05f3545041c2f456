//! The files that an administrator makes for everybody on the machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where each system keeps them.
const FOLDERS: [&str; 2] = ["/etc/claude-code", "/Library/Application Support/ClaudeCode"];

/// The files of settings. If several contain the same setting, Claude Code uses the last one.
pub fn managed_settings() -> Vec<PathBuf> {
    FOLDERS.iter().flat_map(|folder| settings_in(Path::new(folder))).collect()
}

/// The file with an administrator's servers. If it exists, Claude Code starts no other servers.
pub(super) fn exclusive_servers() -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join("managed-mcp.json")).find(|file| file.exists())
}

pub(super) fn settings_in(folder: &Path) -> Vec<PathBuf> {
    let more = fs::read_dir(folder.join("managed-settings.d")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut more: Vec<_> = more.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect();
    more.sort();
    std::iter::once(folder.join("managed-settings.json")).chain(more).collect()
}
