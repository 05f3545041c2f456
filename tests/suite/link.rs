//! `claude-peers link` hands its words to the program of another package, and says so where that is not installed.

use crate::support::{Broker, folder};
use serde_json::Value;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// A copy of the command line in a folder of its own, with this stand-in for `claude-peers-link` beside it, if any.
pub fn command_line(place: &Path, stand_in: Option<&str>) -> PathBuf {
    let program = place.join("claude-peers");
    fs::copy(env!("CARGO_BIN_EXE_claude-peers"), &program).unwrap();
    if let Some(script) = stand_in {
        let link = place.join("claude-peers-link");
        fs::write(&link, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&link, Permissions::from_mode(0o755)).unwrap();
    }
    program
}

/// Such a copy in the environment of a broker's user, who has no other of our programs on `PATH`.
pub fn command(broker: &Broker, program: &Path, arguments: &[&str]) -> Command {
    let prepared = broker.cli(&[]);
    let mut command = Command::new(program);
    command.env_clear().envs(prepared.get_envs().filter_map(|(name, value)| Some((name, value?)))).args(arguments);
    command.env("PATH", "/usr/bin:/bin");
    command
}

#[test]
fn missing_program_is_named_with_its_package() {
    let (broker, place) = (Broker::prepared(&[]), folder());
    let program = command_line(place.path(), None);
    let output = command(&broker, &program, &["link", "status"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("claude-peers-link is not installed") && said.contains("install the package claude-peers-link"),
        "{said}"
    );
    assert_eq!(output.stdout, b"");

    let output = command(&broker, &program, &["--json", "link", "status"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["error"]["message"], "claude-peers-link is not installed", "{report}");
}

#[test]
fn words_output_and_exit_code_pass_through() {
    let (broker, place) = (Broker::prepared(&[]), folder());
    let program = command_line(place.path(), Some("printf '<%s>' \"$@\"; cat; echo why >&2; exit 42"));
    for words in [&["invite", "laptop", "--minutes", "3"][..], &["--help"], &["join", "a b", "-"], &["status", "--json"], &[]] {
        let output = command(&broker, &program, &[&["link"], words].concat()).output().unwrap();
        let given: String = words.iter().map(|word| format!("<{word}>")).collect();
        let given = if words.is_empty() { "<>".to_owned() } else { given };
        assert_eq!(String::from_utf8(output.stdout).unwrap(), given);
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(42), &b"why\n"[..]), "{words:?}");
    }
}

#[test]
fn program_that_cannot_be_run_is_reported() {
    let (broker, place) = (Broker::prepared(&[]), folder());
    let program = command_line(place.path(), Some(""));
    fs::set_permissions(place.path().join("claude-peers-link"), Permissions::from_mode(0o644)).unwrap();
    let output = command(&broker, &program, &["link", "status"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("claude-peers-link: Permission denied"), "{said}");
}
