//! The doctor on the link to other machines. A stand-in for `claude-peers-link` says what that would find.

use super::{Visit, with_claude};
use crate::{
    link::{command, command_line},
    support::{Broker, folder},
};
use std::{fs, path::Path};

/// The doctor beside this stand-in for `claude-peers-link`, if any.
fn visit(broker: &Broker, stand_in: Option<&str>) -> Visit {
    let place = folder();
    let program = command_line(place.path(), stand_in);
    let mut doctor = command(broker, &program, &["doctor"]);
    doctor.env("XDG_RUNTIME_DIR", broker.folder()).env("CLAUDE_PEERS_CLAUDE", broker.folder().join("claude-stand-in"));
    Visit::of(doctor)
}

/// A machine that has joined others.
fn join(config: &Path) {
    let folder = config.join("claude-peers/link");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("link.json"), "{}").unwrap();
}

#[test]
fn machine_that_has_not_joined_hears_nothing_of_the_link() {
    let broker = Broker::start();
    with_claude(&broker);
    for stand_in in [None, Some("echo asked >$HOME/asked")] {
        assert_eq!(visit(&broker, stand_in).findings("link"), [] as [&str; 0]);
    }
    assert!(!broker.folder().join("asked").exists());
}

#[test]
fn missing_program_of_a_machine_that_has_joined_is_reported() {
    let broker = Broker::start();
    with_claude(&broker);
    join(&broker.folder().join(".config"));
    let visited = visit(&broker, None);
    visited.says("link", "failed", &["has joined others", "not installed"], "install the package claude-peers-link");
}

#[test]
fn each_problem_of_the_link_is_a_finding() {
    let broker = Broker::start();
    with_claude(&broker);
    join(&broker.folder().join(".config"));
    let looks = |service: &str, hub: &str| {
        format!(
            r#"[ "$*" = 'status --json' ] && echo '[{{"what":"machine","ok":true,"found":"laptop, one of 2"}},
            {{"what":"service","ok":{service}}},{{"what":"hub","ok":{hub}}}]'"#
        )
    };
    let sound = looks(r#"true,"found":"running""#, r#"true,"found":"hub.example:4222 answers""#);
    assert_eq!(
        visit(&broker, Some(&sound)).findings("link"),
        ["ok: machine: laptop, one of 2; service: running; hub: hub.example:4222 answers"]
    );

    let script = looks(r#"false,"found":"not running (inactive)""#, r#"false,"found":"no answer \u001b[31m""#) + "; exit 1";
    let visited = visit(&broker, Some(&script));
    assert_eq!(visited.findings("link").len(), 2, "{:#?}", visited.findings("link"));
    visited.says("link", "failed", &["service: not running (inactive)"], "systemctl --user enable --now claude-peers-link");
    let hub = visited.says("link", "failed", &["hub: no answer"], "claude-peers-hub");
    assert!(!hub["what"].as_str().unwrap().contains('\u{1b}'), "{hub}");
}

#[test]
fn link_without_a_report_is_reported() {
    let broker = Broker::start();
    with_claude(&broker);
    // The folder of the settings may be elsewhere.
    join(&broker.folder().join("settings"));
    let place = folder();
    let program = command_line(place.path(), Some("echo 'others can read the key' >&2; exit 1"));
    let mut doctor = command(&broker, &program, &["doctor"]);
    doctor.env("XDG_RUNTIME_DIR", broker.folder()).env("CLAUDE_PEERS_CLAUDE", broker.folder().join("claude-stand-in"));
    doctor.env("XDG_CONFIG_HOME", broker.folder().join("settings"));
    Visit::of(doctor).says("link", "failed", &["gives no report: others can read the key"], "same version");
}
