//! Reading Claude Code's files: whether it starts our plugin, and whether an administrator forbids hooks.

use super::halves;
use crate::platform::{
    files, paths,
    settings::{self, InvalidSetting},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Our plugin, as Claude Code names it: with the marketplace that it comes from. Claude Code reserves names that begin with `claude-`.
pub const PLUGIN: &str = "peers@claude-peers";
/// Where each system keeps the settings that an administrator makes for everybody.
const MANAGED: [&str; 2] = ["/etc/claude-code", "/Library/Application Support/ClaudeCode"];
/// Longest file that is read; Claude Code's own, with all its projects, reaches tens of megabytes.
const MAX_FILE: u64 = 256 * 1024 * 1024;
/// Some editors write this mark at the beginning, and Claude Code skips it.
pub(super) const BYTE_ORDER_MARK: &str = "\u{feff}";

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    #[error("reading {}: {source}", file.display())]
    System { file: PathBuf, source: io::Error },
    #[error("{}, line {}, column {}: {}", file.display(), source.line(), source.column(), reason(source))]
    Broken { file: PathBuf, source: serde_json::Error },
}

/// The error without its place.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

/// Where Claude Code's files are, if not in the usual places.
pub(super) fn moved() -> Option<PathBuf> {
    settings::raw("CLAUDE_CONFIG_DIR").map(PathBuf::from)
}

pub(super) fn config_folder() -> Result<PathBuf, InvalidSetting> {
    moved().map_or_else(|| Ok(paths::home()?.join(".claude")), Ok)
}

/// A file's text; none if there is no such file.
pub(super) fn read(file: &Path) -> Result<Option<String>, Unreadable> {
    let text = files::read(file, MAX_FILE).and_then(|text| String::from_utf8(text).map_err(io::Error::other));
    match text {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Unreadable::System { file: file.to_owned(), source }),
    }
}

/// Parses a file's text as Claude Code does, which takes the last of repeated keys.
pub(super) fn parse<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, Unreadable> {
    let text = &halves::hidden(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text));
    serde_json::from_str(text).or_else(|source| {
        let last = serde_json::from_str::<Value>(text).and_then(T::deserialize);
        last.map_err(|_| Unreadable::Broken { file: file.to_owned(), source })
    })
}

/// Parses a file's text. An empty one is the default.
pub(super) fn parse_or_default<T: DeserializeOwned + Default>(file: &Path, text: &str) -> Result<T, Unreadable> {
    let is_empty = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).trim().is_empty();
    if is_empty { Ok(T::default()) } else { parse(file, text) }
}

pub(super) fn read_json<T: DeserializeOwned + Default>(file: &Path) -> Result<T, Unreadable> {
    parse_or_default(file, &read(file)?.unwrap_or_default())
}

/// Whether every session of this user starts our plugin: it is installed *and* switched on for all projects.
pub fn has_plugin() -> Result<bool, Unreadable> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Settings {
        enabled_plugins: Option<BTreeMap<String, Value>>,
    }
    /// One copy of each plugin per scope.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Plugins {
        plugins: BTreeMap<String, Vec<Value>>,
    }
    let folder = config_folder()?;
    let settings: Settings = read_json(&folder.join("settings.json"))?;
    if settings.enabled_plugins.is_none_or(|plugins| plugins.get(PLUGIN) != Some(&Value::Bool(true))) {
        return Ok(false);
    }
    let installed: Plugins = read_json(&folder.join("plugins/installed_plugins.json"))?;
    Ok(installed.plugins.get(PLUGIN).is_some_and(|copies| copies.iter().any(|copy| copy["scope"] == "user")))
}

/// The file in which an administrator forbids users' hooks, those of their plugins included.
pub fn hooks_forbidden_by() -> Result<Option<PathBuf>, Unreadable> {
    for file in managed_settings() {
        if forbids_hooks(&file)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// The files of settings that an administrator makes.
pub(super) fn managed_settings() -> Vec<PathBuf> {
    MANAGED.iter().flat_map(|folder| managed(Path::new(folder))).collect()
}

/// The file with the servers of an administrator, if it exists: then no others are started.
pub(super) fn exclusive_servers() -> Option<PathBuf> {
    MANAGED.iter().map(|folder| Path::new(folder).join("managed-mcp.json")).find(|file| file.exists())
}

fn managed(folder: &Path) -> Vec<PathBuf> {
    let more = fs::read_dir(folder.join("managed-settings.d")).into_iter().flatten().flatten().map(|entry| entry.path());
    let more = more.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    std::iter::once(folder.join("managed-settings.json")).chain(more).collect()
}

fn forbids_hooks(file: &Path) -> Result<bool, Unreadable> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Settings {
        allow_managed_hooks_only: Option<bool>,
        disable_all_hooks: Option<bool>,
    }
    let Settings { allow_managed_hooks_only, disable_all_hooks } = read_json(file)?;
    Ok(allow_managed_hooks_only == Some(true) || disable_all_hooks == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_hooks_are_found_in_every_managed_file() {
        let place = tempfile::tempdir().expect("a folder");
        let files = ["managed-settings.json", "managed-settings.d/50-hooks.json"].map(|file| place.path().join(file));
        fs::create_dir(place.path().join("managed-settings.d")).expect("made");
        for (text, forbids) in [
            ("", false),
            ("{\"allowManagedHooksOnly\": false, \"model\": 1}", false),
            ("{\"allowManagedHooksOnly\": true}", true),
            ("{\"disableAllHooks\": true}", true),
        ] {
            fs::write(&files[1], text).expect("written");
            assert_eq!(forbids_hooks(&files[1]).expect("read"), forbids, "{text}");
        }
        fs::write(place.path().join("managed-settings.d/notes.txt"), "{").expect("written");
        assert_eq!(managed(place.path()), files);
    }
}
