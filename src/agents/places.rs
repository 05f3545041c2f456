//! Where the program of an agent may be: on `PATH`, then in the folders that installers use.

use super::files;
use crate::platform::{
    paths,
    settings::{self, InvalidSetting},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders in the home directory: those of the agents' own installers, then those of node and package managers.
const BELOW_HOME: [&str; 15] = [
    ".local/bin",
    ".claude/local",
    ".opencode/bin",
    ".npm-global/bin",
    ".volta/bin",
    ".asdf/shims",
    ".local/share/mise/shims",
    ".local/share/fnm/aliases/default/bin",
    ".bun/bin",
    ".local/share/pnpm",
    "Library/pnpm",
    ".yarn/bin",
    "n/bin",
    ".nix-profile/bin",
    "bin",
];
const OF_MACHINE: [&str; 5] = ["/usr/local/bin", "/opt/homebrew/bin", "/home/linuxbrew/.linuxbrew/bin", "/usr/bin", "/bin"];

/// All of them; the first that has it counts.
pub fn all() -> Result<Vec<PathBuf>, InvalidSetting> {
    let home = paths::home()?;
    let path = settings::raw("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(BELOW_HOME.map(|place| home.join(place)));
    places.extend(npm_prefix(&home).map(|prefix| prefix.join("bin")));
    places.extend(nvm(&home));
    places.extend(OF_MACHINE.map(PathBuf::from));
    // A relative folder depends on the program's directory, and a folder with a colon cannot be in a search path.
    places.retain(|place| place.is_absolute() && !place.as_os_str().as_encoded_bytes().contains(&b':'));
    let mut seen = std::collections::HashSet::new();
    places.retain(|place| seen.insert(place.clone()));
    Ok(places)
}

fn npm_prefix(home: &Path) -> Option<PathBuf> {
    let settings = files::read(&home.join(".npmrc")).ok()??;
    let value = settings.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "prefix").then(|| value.trim().trim_matches('"').to_owned())
    })?;
    let below_home = ["~/", "${HOME}/", "$HOME/"].into_iter().find_map(|home| value.strip_prefix(home));
    Some(below_home.map_or_else(|| PathBuf::from(&value), |rest| home.join(rest)))
}

/// The folders of every node that nvm installed, the newest node first.
fn nvm(home: &Path) -> Vec<PathBuf> {
    let nvm = settings::raw("NVM_DIR").map_or_else(|| home.join(".nvm"), PathBuf::from);
    let nodes = fs::read_dir(nvm.join("versions/node")).into_iter().flatten().flatten();
    let numbers = |name: &str| name.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or(0)).collect();
    let version = |node: &fs::DirEntry| -> Vec<u32> { numbers(&node.file_name().to_string_lossy()) };
    let mut nodes: Vec<_> = nodes.map(|node| (version(&node), node.path().join("bin"))).collect();
    nodes.sort_by(|a, b| b.cmp(a));
    nodes.into_iter().map(|(_, bin)| bin).collect()
}
