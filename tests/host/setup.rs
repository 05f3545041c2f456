//! `claude-peers setup` without a package, beside a package that is installed later, and for a user of the package.

use crate::{
    Test,
    copies::{self, VERSION},
    doctor::{follow, found},
    machine::{Machine, eventually},
    prepare::{Prepared, Release},
};
use serde_json::Value;
use std::collections::BTreeMap;

pub const TESTS: &[(&str, Test)] = &[
    ("setup::copy_becomes_a_service_and_is_removed", copy_becomes_a_service_and_is_removed),
    ("setup::user_can_opt_out_of_the_package", user_can_opt_out_of_the_package),
    ("setup::package_installs_beside_a_copy", package_installs_beside_a_copy),
];

const BIN: &str = "/home/ada/.cargo/bin";

/// The state of every step of a setup, which must succeed.
#[track_caller]
fn steps(machine: &Machine, command: &str) -> BTreeMap<String, String> {
    let run = machine.ada(&format!("{command} --json"));
    assert_eq!((run.code, &run.json()["ok"]), (0, &Value::Bool(true)), "{run:?}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    run.json()["steps"].as_array().unwrap().iter().map(|step| (text(&step["step"]), text(&step["state"]))).collect()
}

/// The mode and the content or target of every file and link in ada's home, except Claude Code's own.
fn home(machine: &Machine) -> BTreeMap<String, String> {
    let script = "cd && find . -path ./.claude -prune -o -path ./.cache -prune -o -name '.claude.json*' -prune -o -printf '%p %m %l ' \
        \\( -type f -exec sh -c 'sha256sum <\"$1\"' sh {} \\; -o -printf '\\n' \\)";
    let listed = machine.ada(script).ok();
    listed.lines().map(|line| line.split_once(' ').unwrap()).map(|(path, rest)| (path.to_owned(), rest.to_owned())).collect()
}

fn servers(machine: &Machine) -> Value {
    let text = machine.ada("cat ~/.claude.json").out;
    serde_json::from_str::<Value>(&text).map(|all| all["mcpServers"].clone()).unwrap_or_default()
}

fn copy_becomes_a_service_and_is_removed(prepared: &Prepared) {
    for release in [Release::Bookworm, Release::Trixie] {
        let machine = Machine::boot(prepared, release);
        let has_claude = machine.give_claude(prepared, "ada");
        copies::put(&machine, "ada", BIN, VERSION);
        if has_claude {
            // Claude Code's own files exist before, as they do for its users.
            machine.ada("~/.local/bin/claude mcp list").ok();
        }
        let (before, setup) = (home(&machine), format!("{BIN}/claude-peers setup"));
        let planned = steps(&machine, &format!("{setup} --dry-run"));
        assert!(planned.values().any(|state| state == "planned"), "{planned:?}");
        assert_eq!(home(&machine), before, "a dry run changes nothing");

        let done = steps(&machine, &setup);
        for step in ["units", "sockets", "tcp_port", "round_trip"] {
            assert_eq!(done[step], "done", "{done:?}");
        }
        assert_eq!(done["registration"], if has_claude { "done" } else { "skipped" });
        assert_eq!(
            machine.property("ada", "claude-peers.service", "FragmentPath"),
            "/home/ada/.config/systemd/user/claude-peers.service"
        );
        let broker = machine.property("ada", "claude-peers.service", "MainPID");
        assert_eq!(machine.ada(&format!("readlink /proc/{broker}/exe")).ok().trim(), format!("{BIN}/claude-peersd"));
        let verify = "cd ~/.config/systemd/user && systemd-analyze --user --man=no verify claude-peers*.s*";
        let verify = machine.ada(verify);
        assert_eq!((verify.code, verify.err.as_str()), (0, ""), "{verify:?}");
        if has_claude {
            let list = machine.ada("~/.local/bin/claude mcp list").ok();
            let line = list.lines().find(|line| line.starts_with("claude-peers:")).expect(&list);
            assert!(line.contains(BIN) && line.contains("Connected"), "{list}");
            let doctor = machine.ada(&format!("{BIN}/claude-peers doctor --json"));
            assert_eq!(doctor.json()["ok"], true, "{doctor:?}");
        }
        let waiting = machine.ada(&format!("{BIN}/claude-peers status --json")).json()["broker"]["database"]["waiting"].clone();
        assert_eq!(waiting, 0, "the round trip leaves no mail");

        let again = steps(&machine, &setup);
        assert!(again.iter().all(|(step, state)| state == "already" || step == "round_trip"), "{again:?}");

        // It is still there after a login, and the bus can start it too.
        machine.root("systemctl restart user@$(id -u ada).service").ok();
        assert_eq!(machine.property("ada", "claude-peers.socket", "ActiveState"), "active");
        assert_eq!(machine.property("ada", "claude-peers.service", "ActiveState"), "inactive");
        machine.ada("busctl --user call dev.claudepeers.Broker1 /dev/claudepeers/Broker1 dev.claudepeers.Broker1 Status").ok();
        assert_eq!(machine.property("ada", "claude-peers.service", "ActiveState"), "active");

        steps(&machine, &format!("{setup} --undo"));
        let mut after = home(&machine);
        let kept: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).cloned().collect();
        assert_eq!(kept, ["./.claude-peers.db", "./.claude-peers.db-search"], "all but the messages and their index");
        after.retain(|path, _| !kept.contains(path));
        assert_eq!(after, before);
        assert!(servers(&machine).get("claude-peers").is_none(), "{}", servers(&machine));
        assert_eq!(machine.ada("systemctl --user list-units --all --plain --no-legend 'claude*'").ok(), "");
        assert_ne!(machine.root("pgrep -x claude-peersd").code, 0);
    }
}

fn user_can_opt_out_of_the_package(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.install(&prepared.package).ok();
    machine.ada("claude-peers status").ok();
    let units = ["claude-peers.socket", "claude-peers-tcp.socket", "claude-peers.service", "claude-peers-setup.service"];
    let undone = steps(&machine, "claude-peers setup --undo");
    assert_eq!((undone["sockets"].as_str(), undone["mask"].as_str()), ("undone", "undone"), "{undone:?}");
    let login = || machine.root("systemctl restart user@$(id -u ada).service").ok();
    for _ in 0..2 {
        for unit in units {
            assert_eq!(machine.property("ada", unit, "LoadState"), "masked", "{unit}");
            assert_eq!(machine.property("ada", unit, "ActiveState"), "inactive", "{unit}");
        }
        // Neither the next login nor an upgrade brings it back.
        login();
        machine.install(&prepared.package).ok();
    }
    assert_eq!(machine.property("bob", "claude-peers.socket", "ActiveState"), "active", "it is ada's alone");

    let done = steps(&machine, "claude-peers setup");
    assert_eq!((done["units"].as_str(), done["sockets"].as_str(), done["round_trip"].as_str()), ("already", "done", "done"));
    found(&machine, "service", "ok", &["listens"]);
    login();
    assert_eq!(machine.property("ada", "claude-peers.socket", "ActiveState"), "active");
    assert_eq!(machine.ada("find ~/.config -name '*claude*'").out, "");
}

fn package_installs_beside_a_copy(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    let has_claude = machine.give_claude(prepared, "ada");
    copies::put(&machine, "ada", BIN, VERSION);
    steps(&machine, &format!("{BIN}/claude-peers setup"));
    machine.install(&prepared.package).ok();
    let program = || machine.property("ada", "claude-peers.service", "ExecStart");
    assert!(program().contains(BIN), "the package takes nothing away by itself: {}", program());
    let help = found(&machine, "units", "failed", &["/home/ada/.config/systemd/user/claude-peers.socket", "the package's units"]);
    follow(&machine, &help);
    eventually("the package's broker serves", || program().contains("/usr/bin/claude-peersd").then_some(()));

    // Setup does the same: first from the copy, then from the package.
    steps(&machine, &format!("{BIN}/claude-peers setup"));
    assert!(program().contains(BIN), "{}", program());
    let done = steps(&machine, "claude-peers setup");
    assert_eq!((done["units"].as_str(), done["round_trip"].as_str()), ("done", "done"), "{done:?}");
    assert!(program().contains("/usr/bin/claude-peersd"), "{}", program());
    let pid = machine.property("ada", "claude-peers.service", "MainPID");
    assert_eq!(machine.ada(&format!("readlink /proc/{pid}/exe")).ok().trim(), "/usr/bin/claude-peersd");
    assert_eq!(machine.ada("find ~/.config ~/.local/share -name '*claude*peers*' 2>/dev/null").out, "");
    if has_claude {
        assert_eq!(servers(&machine)["claude-peers"]["command"], "/usr/bin/claude-peers-mcp");
    }
    machine.root("systemctl restart user@$(id -u ada).service").ok();
    found(&machine, "units", "ok", &["no other units hide"]);
    found(&machine, "service", "ok", &["listens"]);
}
