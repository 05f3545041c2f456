//! The package of the link: two users join through a hub of one of them, in the way that `claude-peers link` tells them.

use crate::{
    Test,
    doctor::found,
    machine::{Machine, eventually},
    prepare::{Prepared, Release},
};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

pub const TESTS: &[(&str, Test)] = &[
    ("link::two_users_join_and_talk", two_users_join_and_talk),
    ("link::package_restarts_and_removes_the_service", package_restarts_and_removes_the_service),
];

/// Users of Debian have no folders of administrators on their `PATH`.
const PATH: &str = "export PATH=/usr/local/bin:/usr/bin:/bin;";
const UNIT: &str = "claude-peers-link.service";
const HUB: &str = "claude-peers-hub.service";

/// A machine on which ada has set up a hub, as the program told her.
fn with_hub(prepared: &Prepared) -> Machine {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.install(&prepared.package).ok();
    for package in &prepared.link {
        machine.install(package).ok();
    }
    // Debian starts the server for the whole system, on the hub's port.
    machine.root("systemctl disable --quiet --now nats-server").ok();
    let init = machine.ada(&format!("{PATH} claude-peers link init 127.0.0.1"));
    assert_eq!(init.code, 0, "{init:?}");
    let start = init.err.lines().find(|line| line.trim().starts_with("systemctl --user enable --now /")).expect(&init.err);
    machine.ada(&format!("{PATH} {start}")).ok();
    machine
}

/// Ada's command that waits for a machine, and the line that it has printed.
fn invite(machine: &Machine, name: &str) -> (Child, String) {
    let mut command = machine.command("ada", "sh");
    command.args(["-c", &format!("{PATH} exec timeout 120 claude-peers link invite {name}")]);
    let mut waiting = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(waiting.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("claude-peers link join "), "{line}");
    (waiting, line)
}

/// This user's machine joins under this name.
fn join(machine: &Machine, user: &str, name: &str) {
    let (mut waiting, line) = invite(machine, name);
    let joined = machine.run(user, &format!("{PATH} {line}"));
    assert_eq!(joined.code, 0, "{joined:?}");
    assert!(joined.err.contains(&format!("has joined as {name}")) && joined.err.contains("claude-peers-link runs"), "{joined:?}");
    assert!(waiting.wait().unwrap().success());
    assert_eq!(machine.run(user, "systemctl --user is-active claude-peers-link").ok(), "active\n");
    assert_eq!(machine.property(user, UNIT, "UnitFileState"), "enabled");
    eventually("the unit says that the hub is connected", || {
        machine.property(user, UNIT, "StatusText").starts_with(&format!("linked as {name}")).then_some(())
    });
    let status = machine.run(user, &format!("{PATH} claude-peers link status"));
    assert!(status.code == 0 && status.out.lines().all(|line| line.starts_with("ok ")), "{status:?}");
}

/// What a user's link has said that is more than information.
fn complaints(machine: &Machine, user: &str) -> Vec<String> {
    let log = machine.run(user, "journalctl --user -u claude-peers-link -o cat --no-pager").ok();
    assert!(log.contains("linked as"), "{log}");
    let is_complaint = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("panicked");
    let warnings = machine.run(user, "journalctl --user -u claude-peers-link -p warning -o cat --no-pager").ok();
    log.lines().filter(is_complaint).chain(warnings.lines()).map(str::to_owned).collect()
}

fn two_users_join_and_talk(prepared: &Prepared) {
    let machine = with_hub(prepared);
    // A system call that the unit does not permit ends the link, instead of failing.
    for user in ["ada", "bob"] {
        machine.override_unit(user, UNIT, "[Service]\nSystemCallErrorNumber=kill\n");
    }
    let hub = "~/.config/claude-peers/hub/hub/claude-peers-hub.service";
    for units in ["/usr/lib/systemd/user/claude-peers-link.service", hub] {
        let verify = machine.ada(&format!("systemd-analyze --user --man=no verify {units}"));
        assert_eq!((verify.code, verify.out.as_str(), verify.err.as_str()), (0, "", ""), "{units}");
    }
    let checks = machine.bob("claude-peers doctor --json").json();
    assert!(checks["checks"].as_array().unwrap().iter().all(|finding| finding["check"] != "link"), "{checks}");
    join(&machine, "ada", "laptop");
    join(&machine, "bob", "desktop");
    found(&machine, "link", "ok", &["machine: laptop, one of 2", "service: running"]);

    let (mut a, mut b) = (machine.session("ada", "a"), machine.session("bob", "b"));
    for (user, other) in [("ada", "bob@desktop"), ("bob", "ada@laptop")] {
        eventually(&format!("{user} sees {other}"), || {
            machine.run(user, "claude-peers peers --scope everywhere").ok().contains(other).then_some(())
        });
    }
    a.send("bob@desktop", "Is it up?");
    assert_eq!(b.pushed()["content"], "Is it up?");
    b.send("ada@laptop", "It is.");
    assert_eq!(a.pushed()["content"], "It is.");
    for user in ["ada", "bob"] {
        assert_eq!(complaints(&machine, user), [] as [&str; 0], "{user}");
        assert_eq!(machine.property(user, UNIT, "NRestarts"), "0", "{user}");
    }

    machine.ada(&format!("{PATH} claude-peers link revoke desktop")).ok();
    eventually("bob's link is not let in any more", || {
        let status = machine.bob("claude-peers link status");
        (status.code == 1 && status.out.contains("problem hub: ")).then_some(())
    });
    machine.ada("systemctl --user stop claude-peers-link").ok();
    let help = found(&machine, "link", "failed", &["service: not running (inactive)"]);
    assert!(help.contains("`systemctl --user enable --now claude-peers-link`"), "{help}");

    machine.ada("systemctl --user start claude-peers-link").ok();
    for user in ["ada", "bob"] {
        machine.run(user, "claude-peers link leave").ok();
        for (property, value) in [("ActiveState", "inactive"), ("UnitFileState", "disabled"), ("Result", "success")] {
            assert_eq!(machine.property(user, UNIT, property), value, "{user}");
        }
        assert!(machine.run(user, "ls ~/.config/claude-peers/link").ok().is_empty(), "{user}");
    }
    machine.ada("systemctl --user enable --quiet claude-peers-link").ok();
    found(&machine, "link", "warning", &["enabled, but this machine has not joined"]);
    machine.ada("systemctl --user start claude-peers-link").ok();
    assert_eq!(machine.property("ada", UNIT, "ActiveState"), "inactive", "it waits until its user has joined");
}

fn package_restarts_and_removes_the_service(prepared: &Prepared) {
    let machine = with_hub(prepared);
    join(&machine, "ada", "laptop");
    let pid = || machine.property("ada", UNIT, "MainPID");
    let before = pid();
    // The same script runs after an upgrade.
    machine.install(&prepared.link[0]).ok();
    assert_eq!(machine.property("ada", UNIT, "ActiveState"), "active");
    assert_ne!(pid(), before, "it runs the installed version");
    assert_eq!(machine.property("bob", UNIT, "ActiveState"), "inactive", "he has not joined");

    // The main package stays, but not without the link, which needs it.
    assert_ne!(machine.root("dpkg --remove claude-peers").code, 0);
    machine.root("apt-get purge --yes --quiet claude-peers-link").ok();
    for user in ["ada", "bob"] {
        let state = machine.run(user, "systemctl --user show --value -p LoadState,ActiveState claude-peers-link").ok();
        assert_eq!(state, "not-found\ninactive\n", "{user}");
        assert_eq!(machine.run(user, "systemctl --user --failed --plain --no-legend").ok(), "", "{user}");
    }
    assert_ne!(machine.root("pgrep claude-peers-li").code, 0, "the kernel keeps 15 characters of a name");
    let left =
        "find / -xdev -name '*claude-peers-link*' -not -path '/proc/*' -not -path '/home/*' -not -name claude-peers-link.1.gz";
    assert_eq!(machine.root(left).out, "");
    assert_eq!(machine.root("dpkg-query --show --showformat='${Status}' claude-peers-link").out, "");
    let help = found(&machine, "link", "failed", &["has joined others", "not installed"]);
    assert!(help.contains("install the package claude-peers-link"), "{help}");
    assert_eq!(machine.property("ada", HUB, "ActiveState"), "active", "the hub is the user's own");
    machine.ada("claude-peers status").ok();

    machine.install(&prepared.link[0]).ok();
    machine.ada("systemctl --user start claude-peers-link").ok();
    assert!(machine.ada("claude-peers link status").ok().contains("machine: laptop"));
}
