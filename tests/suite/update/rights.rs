//! Permissions and owners of the programs, and the choice of trusted keys.

use super::{
    CURRENT, Ended, Installed, ended, json,
    server::{NEWER, Server, key},
};
use crate::support::other::as_another_user;
use rustix::process::geteuid;
use std::{fs, os::unix::fs::PermissionsExt};

#[test]
fn unwritable_programs_are_left_unchanged() {
    let (installed, server) = (Installed::new(), Server::with_release(NEWER, &key(1)));
    let before = installed.content();
    let mut command = installed.command(&["--from", &server.url, "--key", installed.key.to_str().unwrap()]);
    if geteuid().is_root() {
        fs::set_permissions(installed.place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut other = as_another_user(&installed.program());
        other.args(command.get_args());
        command = other;
    } else {
        fs::set_permissions(installed.bin(), fs::Permissions::from_mode(0o555)).unwrap();
    }
    let Ended { code, out, err } = ended(&mut command);
    fs::set_permissions(installed.bin(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    let bin = installed.bin().display().to_string();
    assert!(err.contains(&format!("the programs in {bin} cannot be replaced: permission denied")), "{err}");
    assert!(err.contains(&format!("`sudo {bin}/claude-peers update`")), "{err}");
    assert!(installed.content() == before);
    assert_eq!(server.heads().len(), 1, "nothing was downloaded");
}

#[test]
fn packaged_programs_are_left_to_their_manager() {
    type Owner = (&'static str, Box<dyn Fn(&Installed)>, &'static str);
    let owners: [Owner; 4] = [
        (
            "the Debian package claude-peers",
            Box::new(|installed| installed.tool("dpkg", r#"[ "$1" = -S ] && echo "claude-peers: $2""#)),
            "sudo apt install --only-upgrade claude-peers",
        ),
        (
            "the RPM package claude-peers",
            Box::new(|installed| {
                installed.tool("dpkg", "exit 1");
                installed.tool("rpm", r#"[ "$1" = -qf ] && printf claude-peers"#);
            }),
            "sudo dnf upgrade claude-peers",
        ),
        (
            "the installer package dev.claudepeers.pkg",
            Box::new(|installed| {
                installed.tool("dpkg", "exit 1");
                installed.tool("rpm", "exit 1");
                installed.tool(
                    "pkgutil",
                    r#"[ "$1" = --file-info ] && printf 'volume: /\npath: %s\n\npkgid: dev.claudepeers.pkg\n' "$2""#,
                );
            }),
            ".pkg of https://github.com/claude-peers/claude-peers/releases",
        ),
        (
            "cargo",
            Box::new(|installed| {
                let record =
                    json!({"installs": {format!("claude-peers {CURRENT} (path+file:///home/me/peers)"): {}}}).to_string();
                fs::write(installed.place.path().join(".crates2.json"), record).unwrap();
            }),
            "cargo install --locked --path /home/me/peers",
        ),
    ];
    for (owner, install, command) in owners {
        let (installed, server) = (Installed::new(), Server::with_release(NEWER, &key(1)));
        install(&installed);
        let program = installed.program().display().to_string();
        installed.refuses(&server, &format!("{program} belongs to {owner}"));
        assert!(server.heads().is_empty(), "no server needs to be asked for that");
        assert!(installed.update(&server, &[]).err.contains(command), "{command}");
        let checked = installed.update(&server, &["--check"]);
        assert!(checked.code == 0 && checked.out.contains(command), "{checked:?}");
        assert!(json(&installed.update(&server, &["--check", "--json"]))["updateWith"].as_str().unwrap().contains(command));
    }
    // A failing package manager leaves the owner of the program unknown.
    let (installed, server) = (Installed::new(), Server::with_release(NEWER, &key(1)));
    installed.tool("dpkg", "echo 'dpkg-query: error: the database is locked' >&2; exit 2");
    installed.refuses(&server, "the database is locked");
}

#[test]
fn only_the_command_line_chooses_the_key() {
    let (installed, server) = (Installed::new(), Server::with_release(NEWER, &key(1)));
    let key = installed.key.to_str().unwrap().to_owned();
    let short = installed.place.path().join("short.pub");
    fs::write(&short, [1; 31]).unwrap();
    let short = short.to_str().unwrap();
    for (arguments, words) in [
        (vec!["--key", &key], "--from"),
        (vec!["--from", "mirror.example"], "http or https URL"),
        (vec!["--from", "https://me:secret@mirror.example"], "without user"),
        (vec!["--from", &server.url, "--key", short], "it has 31 bytes, not 32"),
        (vec!["--from", &server.url, "--key", "/nonexistent/key"], "/nonexistent/key"),
        (vec!["--version", "latest"], "a version looks like 1.2.3"),
        (vec!["--version", "1.2.3/../.."], "a version looks like 1.2.3"),
        (vec!["--from", "https://a/?b"], "without user, password and query"),
    ] {
        let refused = installed.run(&arguments);
        assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{refused:?}");
        assert!(refused.err.contains(words), "{words}: {refused:?}");
    }
    assert!(server.heads().is_empty());
    // Secrets from the environment are not sent to a release server.
    let mut command = installed.command(&["--from", &server.url, "--key", &key]);
    let updated = ended(command.env("GITHUB_TOKEN", "secret").env("GH_TOKEN", "secret"));
    assert_eq!(updated.code, 0, "{updated:?}");
    assert!(!server.heads().concat().to_ascii_lowercase().contains("authorization"), "{:?}", server.heads());
}
