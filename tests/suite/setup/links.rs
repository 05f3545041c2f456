//! Setup writes the user's settings through links, and a write that fails leaves nothing behind.

use super::Home;
use crate::support::mount::with_mounts;
use std::{fs, os::unix::fs::symlink, path::PathBuf};

const HOOK: &str = " hook UserPromptSubmit";

/// Every file and link for Claude Code in the home.
fn of_user(home: &Home) -> Vec<(PathBuf, Vec<u8>)> {
    let folders = ["home/.claude", "home/dotfiles", "home/missing"].map(|folder| home.path(folder));
    let is_file = |path: &PathBuf| path.is_symlink() || path.is_file();
    let files =
        home.tree().into_iter().filter(|(path, _)| folders.iter().any(|folder| path.starts_with(folder)) && is_file(path));
    files.map(|(path, (_, content))| (path, content)).collect()
}

#[test]
fn settings_are_written_through_dangling_links() {
    // A link as the file, as the folder, and as both.
    for links in [
        &[(".claude/settings.json", "dotfiles/claude.json")][..],
        &[(".claude/settings.json", "../dotfiles/claude.json")],
        &[(".claude", "dotfiles/claude")],
        &[(".claude", "dotfiles"), ("dotfiles/settings.json", "first"), ("dotfiles/first", "second")],
        &[(".claude/settings.json.before-claude-peers", "dotfiles/copy"), (".claude/settings.json", "dotfiles/claude.json")],
    ] {
        let home = Home::new();
        fs::create_dir_all(home.path("home/dotfiles")).unwrap();
        for (link, target) in links {
            let target =
                if target.contains("../") || !target.contains('/') { target.into() } else { home.path("home").join(target) };
            let link = home.path("home").join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(target, link).unwrap();
        }
        let is_link = || links.iter().all(|(link, _)| fs::symlink_metadata(home.path("home").join(link)).unwrap().is_symlink());
        let before = of_user(&home);
        for state in ["done", "already"] {
            let (code, steps) = home.setup(&[]);
            assert_eq!((code, &*steps["hooks"].0), (0, state), "{links:?}: {steps:?}");
            assert!(is_link() && fs::read_to_string(home.user_settings()).unwrap().contains(HOOK), "{links:?}");
        }
        let (code, steps) = home.setup(&["--undo"]);
        assert_eq!((code, &*steps["hooks"].0), (0, "undone"), "{links:?}: {steps:?}");
        assert!(of_user(&home) == before && home.path("home/dotfiles").is_dir(), "{links:?}");
    }
}

#[test]
fn link_without_a_place_is_refused() {
    for (link, target) in [
        (".claude/settings.json", "missing/claude.json"),
        (".claude", "missing/claude"),
        (".claude/settings.json", "settings.json"),
    ] {
        let home = Home::new();
        let link = home.path("home").join(link);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(target, &link).unwrap();
        let before = of_user(&home);
        let (code, steps) = home.setup(&[]);
        let (state, said) = &steps["hooks"];
        assert!(code == 1 && state == "failed" && said.contains(link.to_str().unwrap()), "{target}: {steps:?}");
        let missing = format!("a link to {}, whose folder is missing", link.with_file_name(target).display());
        assert_eq!(said.contains(&missing), target.starts_with("missing"), "{said}");
        assert_eq!(of_user(&home), before);
    }
}

#[test]
fn failed_write_leaves_nothing_behind() {
    let home = Home::new();
    let [store, claude] = ["home/store", "home/.claude"].map(|folder| home.path(folder));
    [&store, &claude].iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
    fs::write(store.join("settings.json"), "{}\n").unwrap();
    symlink(store.join("settings.json"), home.user_settings()).unwrap();
    let read_only = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"";
    let run = |arguments: &[&str]| Some(Home::run(with_mounts(&home.command(arguments), read_only, &store)?));
    let beside = || fs::read_dir(&claude).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let Some((code, steps)) = run(&[]) else { return };
    assert!(code == 1 && ["hooks", "allow_rule"].iter().all(|step| steps[*step].0 == "failed"), "{steps:?}");
    assert!(steps["hooks"].1.contains(store.join("settings.json").to_str().unwrap()), "{steps:?}");
    assert_eq!(beside(), ["settings.json"]);
    // An earlier copy stays as it was.
    let copy = claude.join("settings.json.before-claude-peers");
    fs::write(&copy, "{\"theirs\": 1}").unwrap();
    assert_eq!(run(&[]).unwrap().0, 1);
    assert_eq!(fs::read_to_string(&copy).unwrap(), "{\"theirs\": 1}");
    fs::remove_file(&copy).unwrap();
    // So does the copy if the hook cannot be removed.
    assert_eq!(home.setup(&[]).0, 0);
    let (settings, kept) = (fs::read(home.user_settings()).unwrap(), fs::read(&copy).unwrap());
    let (code, steps) = run(&["--undo"]).unwrap();
    assert!(code == 1 && steps["hooks"].0 == "failed", "{steps:?}");
    assert_eq!((fs::read(home.user_settings()).unwrap(), fs::read(&copy).unwrap()), (settings, kept));
}
