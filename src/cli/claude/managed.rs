//! Settings that an administrator makes for everybody: whether they keep a user's hooks from running.

use super::{Unreadable, read_json};
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where they lie, by the systems' custom.
const FOLDERS: [&str; 2] = ["/etc/claude-code", "/Library/Application Support/ClaudeCode"];

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Settings {
    allow_managed_hooks_only: Option<bool>,
    disable_all_hooks: Option<bool>,
}

/// The file by which an administrator keeps a user's hooks from running, those of the user's plugins included.
///
/// # Errors
/// If such a file cannot be read or understood.
pub fn hooks_forbidden_by() -> Result<Option<PathBuf>, Unreadable> {
    for file in FOLDERS.iter().flat_map(|folder| files(Path::new(folder))) {
        if forbids_hooks(file.clone())? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// The file of a folder, and those that may lie beside it in a folder of their own.
fn files(folder: &Path) -> Vec<PathBuf> {
    let more = fs::read_dir(folder.join("managed-settings.d")).into_iter().flatten().flatten().map(|entry| entry.path());
    let more = more.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    std::iter::once(folder.join("managed-settings.json")).chain(more).collect()
}

fn forbids_hooks(file: PathBuf) -> Result<bool, Unreadable> {
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
        assert_eq!(files(place.path()), [main.clone(), more.join("50-hooks.json")]);
        assert!(forbids_hooks(more.join("50-hooks.json")).expect("read"));
        for (text, forbids) in [
            ("", false),
            ("{}", false),
            ("{\"allowManagedHooksOnly\": false, \"model\": 1}", false),
            ("{\"allowManagedHooksOnly\": true}", true),
            ("{\"disableAllHooks\": true}", true),
        ] {
            fs::write(&main, text).expect("written");
            assert_eq!(forbids_hooks(main.clone()).expect("read"), forbids, "{text}");
        }
        fs::write(&main, "{\n1}").expect("written");
        let error = forbids_hooks(main.clone()).expect_err("broken").to_string();
        assert!(error.starts_with(&format!("{}, line 2, column 1: ", main.display())), "{error}");
        fs::remove_file(&main).expect("removed");
        assert!(!forbids_hooks(main).expect("nothing to read"));
    }
}
