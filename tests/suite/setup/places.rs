//! Setup finds `claude` where npm and nvm put it.

use super::{Home, server};
use std::{fs, path::Path, process::Command};

/// Moves `claude` into this folder.
fn moved(home: &Home, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    fs::rename(home.path("bin/claude"), folder.join("claude")).unwrap();
}

#[test]
fn setup_follows_the_prefix_of_npm() {
    for (settings, folder) in [
        ("a=b\nprefix = ${HOME}/.npm\n", "home/.npm/bin"),
        ("prefix=~/x", "home/x/bin"),
        ("//registry/:_authToken=x\nprefix=\"PLACE/npm\"", "npm/bin"),
    ] {
        let home = Home::new();
        let place = home.path("").display().to_string();
        fs::write(home.path("home/.npmrc"), settings.replace("PLACE", place.trim_end_matches('/'))).unwrap();
        moved(&home, &home.path(folder));
        assert_eq!(home.setup(&["--register-only"]).0, 0, "{settings}");
        assert_eq!(home.registration(), server(), "{settings}");
    }
}

#[test]
fn pipe_in_place_of_the_settings_of_npm_stops_nobody() {
    let home = Home::new();
    assert!(Command::new("mkfifo").arg(home.path("home/.npmrc")).status().unwrap().success());
    assert_eq!(home.setup(&["--register-only"]).0, 0);
    assert_eq!(home.registration(), server());
}

#[test]
fn newest_node_of_nvm_comes_first() {
    let home = Home::new();
    let bin = |node: &str| home.path("home/.nvm/versions/node").join(node).join("bin");
    moved(&home, &bin("v22.12.0"));
    for old in ["v22.1.0", "v9.9.9"] {
        home.program("claude", "#!/bin/sh\nexit 9\n");
        moved(&home, &bin(old));
    }
    assert_eq!(home.setup(&["--register-only"]).0, 0);
    assert_eq!(home.registration(), server());
}
