//! Claude Code's files, which are only read here: what they say of our plugin and of a user's hooks.

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

/// Our plugin, as Claude Code names it: with the marketplace it comes from. A name that begins with `claude-` is not to be had.
pub const PLUGIN: &str = "peers@claude-peers";
/// Where the settings lie that an administrator makes for everybody, by the systems' custom.
const MANAGED: [&str; 2] = ["/etc/claude-code", "/Library/Application Support/ClaudeCode"];
/// Longest file that is read; Claude Code's own, with all its projects, reaches tens of megabytes.
const MAX_FILE: u64 = 256 * 1024 * 1024;
/// The mark at the beginning that some editors write, and Claude Code reads past.
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

/// The error without its place, which is said already.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

pub(super) fn config_folder() -> Result<PathBuf, InvalidSetting> {
    settings::raw("CLAUDE_CONFIG_DIR").map_or_else(|| Ok(paths::home()?.join(".claude")), |folder| Ok(PathBuf::from(folder)))
}

/// A file's text; none if it is not there.
pub(super) fn read(file: &Path) -> Result<Option<String>, Unreadable> {
    let text = files::read(file, MAX_FILE).and_then(|text| String::from_utf8(text).map_err(io::Error::other));
    match text {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Unreadable::System { file: file.to_owned(), source }),
    }
}

pub(super) fn parse<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, Unreadable> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    serde_json::from_str(text).map_err(|source| Unreadable::Broken { file: file.to_owned(), source })
}

/// What a file with this text says; an empty one says nothing.
pub(super) fn parse_or_default<T: DeserializeOwned + Default>(file: &Path, text: &str) -> Result<T, Unreadable> {
    let is_empty = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).trim().is_empty();
    if is_empty { Ok(T::default()) } else { parse(file, text) }
}

/// What a file says; one that is not there says nothing.
fn read_json<T: DeserializeOwned + Default>(file: &Path) -> Result<T, Unreadable> {
    parse_or_default(file, &read(file)?.unwrap_or_default())
}

/// Whether every session of this user starts our plugin: Claude Code has it installed *and* switched on for all projects.
pub fn has_plugin() -> Result<bool, Unreadable> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Settings {
        enabled_plugins: Option<BTreeMap<String, Value>>,
    }
    /// Of each plugin one copy per scope.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Plugins {
        plugins: BTreeMap<String, Vec<Copy>>,
    }
    #[derive(Deserialize)]
    struct Copy {
        scope: String,
    }
    let folder = config_folder()?;
    let settings: Settings = read_json(&folder.join("settings.json"))?;
    if settings.enabled_plugins.is_none_or(|plugins| plugins.get(PLUGIN) != Some(&Value::Bool(true))) {
        return Ok(false);
    }
    let installed: Plugins = read_json(&folder.join("plugins/installed_plugins.json"))?;
    Ok(installed.plugins.get(PLUGIN).is_some_and(|copies| copies.iter().any(|copy| copy.scope == "user")))
}

/// The file by which an administrator keeps a user's hooks from running, those of the user's plugins included.
pub fn hooks_forbidden_by() -> Result<Option<PathBuf>, Unreadable> {
    for file in MANAGED.iter().flat_map(|folder| managed(Path::new(folder))) {
        if forbids_hooks(&file)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// The file of a folder, and those that may lie beside it in a folder of their own.
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
    fn what_keeps_hooks_from_running_is_found_in_every_file() {
        let place = tempfile::tempdir().expect("a folder");
        let main = place.path().join("managed-settings.json");
        let more = place.path().join("managed-settings.d");
        fs::create_dir(&more).expect("made");
        fs::write(more.join("50-hooks.json"), "{\"allowManagedHooksOnly\": true}").expect("written");
        fs::write(more.join("notes.txt"), "{").expect("written");
        assert_eq!(managed(place.path()), [main.clone(), more.join("50-hooks.json")]);
        assert!(forbids_hooks(&more.join("50-hooks.json")).expect("read"));
        for (text, forbids) in [
            ("", false),
            ("{}", false),
            ("{\"allowManagedHooksOnly\": false, \"model\": 1}", false),
            ("{\"allowManagedHooksOnly\": true}", true),
            ("{\"disableAllHooks\": true}", true),
        ] {
            fs::write(&main, text).expect("written");
            assert_eq!(forbids_hooks(&main).expect("read"), forbids, "{text}");
        }
        fs::write(&main, "{\n1}").expect("written");
        let error = forbids_hooks(&main).expect_err("broken").to_string();
        assert!(error.starts_with(&format!("{}, line 2, column 1: ", main.display())), "{error}");
        assert!(!error.ends_with(|c: char| c.is_ascii_digit()), "the place is said once: {error}");
        assert!(!forbids_hooks(&place.path().join("none")).expect("nothing to read"));
    }
}
