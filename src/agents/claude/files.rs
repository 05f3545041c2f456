//! Reading Claude Code's files: whether it starts our plugin, and whether an administrator forbids hooks.

use super::managed::managed_settings;
use crate::{
    agents::files::{Unreadable, parse_or_default, read},
    platform::{
        paths,
        settings::{self, InvalidSetting},
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Our plugin, as Claude Code names it: with the marketplace that it comes from. Claude Code reserves names that begin with `claude-`.
pub const PLUGIN: &str = "peers@claude-peers";
/// Where Claude Code's files are, if not in the usual places.
pub(super) fn moved() -> Option<PathBuf> {
    settings::raw("CLAUDE_CONFIG_DIR").map(PathBuf::from)
}

pub(super) fn config_folder() -> Result<PathBuf, InvalidSetting> {
    moved().map_or_else(|| Ok(paths::home()?.join(".claude")), Ok)
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
    use super::{super::managed::settings_in, *};
    use std::fs;

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
        assert_eq!(settings_in(place.path()), files);
    }
}
