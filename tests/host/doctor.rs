//! Real faults: the doctor reports each of them, and the commands it suggests fix them.

use crate::{
    Test, copies,
    machine::{Machine, USERS, eventually},
    prepare::{Prepared, Release},
};
use std::{fs, os::unix::fs::FileExt};

pub const TESTS: &[(&str, Test)] = &[
    ("doctor::units_that_cannot_start_are_reported", units_that_cannot_start_are_reported),
    ("doctor::taken_port_is_reported", taken_port_is_reported),
    ("doctor::unusable_database_is_reported", unusable_database_is_reported),
    ("doctor::old_package_beside_new_copy_is_reported", old_package_beside_new_copy_is_reported),
    ("doctor::unregistered_claude_code_is_reported", unregistered_claude_code_is_reported),
];

/// The folders into which installers put `claude` and cargo puts our programs.
const PATH: &str = "PATH=$HOME/.local/bin:$PATH";

/// Checks that ada's doctor has a finding of this check with this state and these words. Returns its help.
#[track_caller]
pub fn found(machine: &Machine, check: &str, state: &str, words: &[&str]) -> String {
    found_by(machine, "claude-peers doctor --json", check, state, words)
}

/// The same for a doctor that is called in another way.
#[track_caller]
pub fn found_by(machine: &Machine, doctor: &str, check: &str, state: &str, words: &[&str]) -> String {
    let run = machine.ada(&format!("{PATH} {doctor}"));
    let report = run.json();
    assert_eq!(run.code == 0, report["ok"] == true, "{run:?}");
    let findings = report["checks"].as_array().unwrap();
    let fits = |what: &str| words.iter().all(|word| what.contains(word));
    let finding = findings
        .iter()
        .find(|finding| finding["check"] == check && finding["state"] == state && fits(finding["what"].as_str().unwrap()));
    let finding = finding.unwrap_or_else(|| panic!("no {check} {state} with {words:?}: {report:#}"));
    finding["help"].as_str().unwrap_or_default().to_owned()
}

/// Runs every command that stands in backticks in a help text, as the user would.
#[track_caller]
pub fn follow(machine: &Machine, help: &str) {
    let commands: Vec<_> = help.split('`').skip(1).step_by(2).collect();
    assert!(!commands.is_empty(), "no command: {help}");
    for command in commands {
        let run = machine.ada(&format!("{PATH}; {command}"));
        // A doctor that finds another fault fails, whatever it has fixed.
        assert!(run.code == 0 || command.contains("doctor"), "{command}: {run:?}");
    }
}

fn units_that_cannot_start_are_reported(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.install(&prepared.package).ok();
    machine.bob("systemctl --user stop claude-peers-tcp.socket").ok();
    machine.ada("systemctl --user start claude-peers-tcp.socket").ok();
    found(&machine, "service", "ok", &["listens on both sockets"]);
    for unit in ["claude-peers.service", "claude-peers.socket", "claude-peers-tcp.socket"] {
        machine.ada(&format!("systemctl --user mask --now {unit}")).ok();
        let help = found(&machine, "service", "failed", &[unit, "is masked"]);
        follow(&machine, &help);
        found(&machine, "service", "ok", &["listens on both sockets"]);
        found(&machine, "unix-socket", "ok", &["served by the broker"]);
        found(&machine, "tcp-socket", "ok", &["7899"]);
    }

    // The broker was started without the port's unit and has opened the port itself.
    machine.ada("systemctl --user stop claude-peers-tcp.socket claude-peers.service && systemctl --user mask --runtime claude-peers-tcp.socket").ok();
    machine.ada("claude-peers status && systemctl --user unmask --runtime claude-peers-tcp.socket").ok();
    found(&machine, "tcp-socket", "ok", &["7899"]);
    let help = found(&machine, "service", "warning", &["claude-peers-tcp.socket is down", "listens on the port itself"]);
    follow(&machine, &help);
    found(&machine, "service", "ok", &["listens on both sockets"]);

    // A user's own unit overrides the package's, and its program is gone.
    machine
        .ada(
            "cd ~/.config/systemd/user 2>/dev/null || { mkdir -p ~/.config/systemd/user && cd ~/.config/systemd/user; }\n\
             sed s:/usr/bin:/opt/old:g /usr/lib/systemd/user/claude-peers.service >claude-peers.service\n\
             systemctl --user daemon-reload && systemctl --user stop claude-peers.service",
        )
        .ok();
    let help =
        found(&machine, "units", "failed", &["/home/ada/.config/systemd/user/claude-peers.service", "hides the package's"]);
    found(&machine, "service", "failed", &["203", "/opt/old/claude-peersd"]);
    follow(&machine, &help);
    found_by(&machine, "claude-peers doctor --fix --json", "service", "ok", &["listens on both sockets"]);
    found(&machine, "units", "ok", &["no other units hide"]);
}

fn taken_port_is_reported(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.install(&prepared.package).ok();
    for user in USERS {
        machine.run(user, "systemctl --user stop claude-peers-tcp.socket claude-peers.service").ok();
    }
    let hold = "systemd-run --user --quiet --unit=other systemd-socket-activate --accept --listen=127.0.0.1:7899 cat";
    let held = || eventually("the port is held", || machine.root("ss -ltn | grep -q :7899").code.eq(&0).then_some(()));
    machine.ada(hold).ok();
    held();
    let help = found(&machine, "tcp-socket", "failed", &["7899", "another program of yours", "systemd-socket-activate"]);
    let holder = machine.property("ada", "other.service", "MainPID");
    let (own, _other) = help.split_once("; or").unwrap();
    follow(&machine, &own.replacen("`kill`", &format!("`kill {holder}`"), 1));
    found(&machine, "tcp-socket", "ok", &["127.0.0.1:7899"]);

    machine.ada("systemctl --user stop claude-peers-tcp.socket claude-peers.service").ok();
    machine.bob(hold).ok();
    held();
    let help = found(&machine, "tcp-socket", "failed", &["7899", "a program of user bob"]);
    follow(&machine, &help);
    found(&machine, "tcp-socket", "ok", &["127.0.0.1:7900"]);
}

fn unusable_database_is_reported(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.install(&prepared.package).ok();
    let (mut a, mut b) = (machine.session("ada", "a"), machine.session("ada", "b"));
    let b_id = b.id();
    b.close();
    for number in 0..20 {
        a.send(&b_id, &format!("{number} {}", "x".repeat(5_000)));
    }
    a.close();
    let path = machine.path("/home/ada/.claude-peers.db");
    let version = |version: u32| {
        let database = rusqlite::Connection::open(&path).unwrap();
        database.pragma_update(None, "user_version", version).unwrap();
    };
    let schema: u32 =
        rusqlite::Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let stop = || machine.ada("systemctl --user stop claude-peers.service").ok();
    let mends = || {
        found_by(&machine, "claude-peers doctor --fix --json", "service", "ok", &["the broker runs"]);
        found(&machine, "database", "ok", &["sound"]);
    };
    found(&machine, "database", "ok", &["/home/ada/.claude-peers.db", "sound"]);

    stop();
    version(99);
    let help = found(&machine, "database", "failed", &["/home/ada/.claude-peers.db", "newer version", "99"]);
    assert!(help.contains("upgrade claude-peers"), "{help}");
    found(&machine, "service", "failed", &["exit code 4: the database was written by a newer version"]);
    stop();
    version(schema);
    mends();

    stop();
    machine.ada("chmod 400 .claude-peers.db").ok();
    let help = found(&machine, "database", "failed", &["/home/ada/.claude-peers.db", "cannot be written by you"]);
    assert!(help.contains("/home/ada"), "{help}");
    machine.ada("chmod 600 .claude-peers.db").ok();
    mends();

    // The broker recovers by itself, and the doctor reports what happened to the messages.
    stop();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let middle = file.metadata().unwrap().len() / 4096 / 2 * 4096;
    file.write_all_at(&[0xa5; 8 * 4096], middle).unwrap();
    drop(file);
    found(&machine, "database", "warning", &["damaged", "set aside", "recovered"]);
    found(&machine, "database", "ok", &["sound"]);
}

fn old_package_beside_new_copy_is_reported(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.install(&prepared.previous).ok();
    let old = copies::version_of('0');
    copies::put(&machine, "root", "/usr/bin", &old);
    copies::put(&machine, "ada", "/home/ada/.local/bin", copies::VERSION);
    let version = machine.ada("/usr/bin/claude-peers status --json").json()["broker"]["version"].clone();
    assert_eq!(version, *old);
    let broker = format!("running broker {old} (/usr/bin/claude-peersd)");
    let server = format!("MCP server {old} (/usr/bin/claude-peers-mcp)");
    let help = found_by(&machine, "claude-peers doctor --json", "versions", "failed", &["not of one version", &broker]);
    assert!(help.contains("upgrade them together") && help.contains("apt remove claude-peers"), "{help}");
    // For the complete package, the other copy is only unused.
    let other = format!("{} (/home/ada/.local/bin/claude-peers)", copies::VERSION);
    found_by(&machine, "/usr/bin/claude-peers doctor --json", "versions", "ok", &[&old]);
    found_by(&machine, "/usr/bin/claude-peers doctor --json", "versions", "warning", &["other copies", &other]);
    if machine.give_claude(prepared, "ada") {
        let register = "claude mcp add --scope user --transport stdio claude-peers -- /usr/bin/claude-peers-mcp";
        machine.ada(&format!("{PATH} {register}")).ok();
        found(&machine, "versions", "failed", &[&broker, &server]);
        found(&machine, "registration", "failed", &["/usr/bin/claude-peers-mcp", &format!("version {old}")]);
    }
    machine.install(&prepared.package).ok();
    found(&machine, "versions", "ok", &[copies::VERSION]);
}

fn unregistered_claude_code_is_reported(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.install(&prepared.package).ok();
    found(&machine, "claude", "failed", &["Claude Code was not found"]);
    let claude = "~/.local/bin/claude";
    machine
        .ada(&format!(
            "mkdir -p ~/.local/bin && printf '#!/bin/sh\necho 2.1.10\\ \\(Claude Code\\)\n' >{claude} && chmod +x {claude}"
        ))
        .ok();
    let help = found(&machine, "claude", "failed", &["2.1.10", "too old", "2.1.80"]);
    assert!(help.contains("claude update"), "{help}");
    machine.ada(&format!("rm {claude}")).ok();
    if !machine.give_claude(prepared, "ada") {
        return;
    }
    let well = || {
        found(&machine, "registration", "ok", &["/usr/bin/claude-peers-mcp"]);
        let list = machine.ada(&format!("{claude} mcp list")).ok();
        let ours: Vec<_> = list.lines().filter(|line| line.contains("peers")).collect();
        assert!(ours.len() == 1 && ours[0].starts_with("claude-peers:") && ours[0].contains("Connected"), "{list}");
    };
    let entry = |words: &str| {
        drop(machine.ada(&format!("{claude} mcp remove --scope user claude-peers")));
        if !words.is_empty() {
            machine.ada(&format!("{claude} mcp add --scope user {words}")).ok();
        }
    };
    found(&machine, "claude", "ok", &["Claude Code"]);
    for (words, what) in [
        ("", "not registered"),
        ("peers -- /usr/bin/claude-peers-mcp", "under the name peers"),
        ("claude-peers -- /home/ada/old/claude-peers-mcp", "/home/ada/old/claude-peers-mcp, but there is no such program"),
        ("claude-peers -- /usr/bin/cat", "for another program: /usr/bin/cat"),
    ] {
        entry(words);
        let help = found(&machine, "registration", "failed", &[what]);
        // The manual command that is also suggested has the same effect.
        follow(&machine, help.split(", or by hand").next().unwrap());
        well();
    }
    entry("");
    found_by(&machine, "claude-peers doctor --fix --json", "registration", "ok", &[]);
    well();
}
