//! The installed service sleeps until it is needed and logs to the journal.

use crate::{
    Test,
    machine::{Machine, eventually},
    prepare::{Prepared, Release},
};
use serde_json::Value;

pub const TESTS: &[(&str, Test)] = &[
    ("install::first_connection_starts_the_broker", first_connection_starts_the_broker),
    ("install::units_pass_systemd_analyze", units_pass_systemd_analyze),
    ("install::idle_service_has_no_process", idle_service_has_no_process),
    ("install::package_registers_with_a_real_claude_code", package_registers_with_a_real_claude_code),
];

fn first_connection_starts_the_broker(prepared: &Prepared) {
    for release in [Release::Bookworm, Release::Trixie] {
        let machine = Machine::boot(prepared, release);
        machine.install(&prepared.package).ok();
        for user in ["ada", "bob"] {
            assert_eq!(machine.property(user, "claude-peers.socket", "ActiveState"), "active", "{user}");
            assert_eq!(machine.property(user, "claude-peers.service", "ActiveState"), "inactive", "{user}");
        }
        // TAB completes, but starts no broker.
        let tab = |words: &str| machine.ada(&format!("_CLAUDE_PEERS_COMPLETE=fish claude-peers -- claude-peers {words}"));
        let offered = tab("send ''");
        assert!(offered.out.starts_with("@repo\t") && offered.err.is_empty(), "{offered:?}");
        assert_ne!(machine.root("pgrep -x claude-peersd").code, 0, "nobody has asked for a broker yet");
        for (shell, file) in [
            ("bash", "bash-completion/completions/claude-peers"),
            ("zsh", "zsh/vendor-completions/_claude-peers"),
            ("fish", "fish/vendor_completions.d/claude-peers.fish"),
        ] {
            let installed = machine.root(&format!("cat /usr/share/{file}")).ok();
            assert_eq!(installed, machine.root(&format!("claude-peers completions {shell}")).ok());
        }
        let mode = machine.ada("stat -c '%a %U' $XDG_RUNTIME_DIR/claude-peers $XDG_RUNTIME_DIR/claude-peers/broker.sock").ok();
        assert_eq!(mode, "700 ada\n600 ada\n");

        let mut session = machine.session("ada", "session-1");
        let id = session.id();
        assert_eq!(machine.property("ada", "claude-peers.service", "ActiveState"), "active");
        assert_eq!(machine.property("bob", "claude-peers.service", "ActiveState"), "inactive");
        eventually("TAB offers the session", || tab("ask ada").out.starts_with("ada\t").then_some(()));
        eventually("the unit says who is there", || {
            (machine.property("ada", "claude-peers.service", "StatusText") == "1 peer").then_some(())
        });

        let unit = machine.ada("journalctl --user -u claude-peers -o cat --no-pager").ok();
        assert!(unit.contains("registered"), "{unit}");
        // Journal fields let people find the entries of one session.
        let lines = machine.ada(&format!("journalctl --user CLAUDE_PEERS_PEER={id} -o json --no-pager")).ok();
        let entries: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let registered =
            entries.iter().find(|entry| entry["MESSAGE"].as_str().unwrap().contains("has registered")).expect(&lines);
        for (field, value) in
            [("SYSLOG_IDENTIFIER", "claude-peersd"), ("_SYSTEMD_USER_UNIT", "claude-peers.service"), ("PRIORITY", "6")]
        {
            assert_eq!(registered[field], value, "{registered}");
        }
        // It sent READY=1 before it served the first session, but systemd may read that later.
        let at = |words: &str| unit.lines().position(|line| line.contains(words)).expect(&unit);
        assert!(at("ready: ") < at("has registered"), "{unit}");
        let sent = machine.ada(&format!("claude-peers send {id} 'Is it up?' --json")).json();
        session.pushed();
        let message = sent["messageId"].as_str().unwrap();
        let lines = machine.ada(&format!("journalctl --user CLAUDE_PEERS_MESSAGE={message} -o json --no-pager")).ok();
        let queued: Value = serde_json::from_str(lines.lines().next().expect("the message is logged")).unwrap();
        for (field, value) in
            [("CLAUDE_PEERS_PEER", id.as_str()), ("CLAUDE_PEERS_SENDER", "cli"), ("CLAUDE_PEERS_STATE", "queued")]
        {
            assert_eq!(queued[field], value, "{queued}");
        }
        assert!(!lines.contains("Is it up?"), "{lines}");
        assert!(session.close().success());
    }
}

fn units_pass_systemd_analyze(prepared: &Prepared) {
    for release in [Release::Bookworm, Release::Trixie] {
        let machine = Machine::boot(prepared, release);
        machine.install(&prepared.package).ok();
        let units = "claude-peers.service claude-peers.socket claude-peers-tcp.socket claude-peers-port-taken.service \
                     claude-peers-setup.service";
        let verify = machine.ada(&format!("cd /usr/lib/systemd/user && systemd-analyze --user --man=no verify {units}"));
        assert_eq!((verify.code, verify.out.as_str(), verify.err.as_str()), (0, "", ""), "{}", release.name());
        // The broker works within its unit's restrictions: none of its system calls is refused.
        let mut session = machine.session("ada", "session-1");
        let receipt = machine.ada(&format!("claude-peers send {} 'Is it up?' --json", session.id()));
        assert_eq!(receipt.json()["state"], "queued", "{receipt:?}");
        assert_eq!(session.pushed()["content"], "Is it up?");
        let log = machine.ada("journalctl --user -u claude-peers -p warning -o cat --no-pager").ok();
        assert_eq!(log, "", "warnings");
    }
}

fn idle_service_has_no_process(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.install(&prepared.package).ok();
    machine.override_unit("ada", "claude-peers.service", "[Service]\nEnvironment=CLAUDE_PEERS_IDLE_EXIT=1s\n");
    let mut session = machine.session("ada", "session-1");
    session.id();
    assert_eq!(machine.property("ada", "claude-peers.service", "ActiveState"), "active");
    session.close();
    eventually("the broker leaves", || {
        (machine.property("ada", "claude-peers.service", "ActiveState") == "inactive").then_some(())
    });
    assert_eq!(machine.property("ada", "claude-peers.service", "Result"), "success");
    assert_eq!(machine.property("ada", "claude-peers.socket", "ActiveState"), "active");
    machine.ada("claude-peers status").ok();
}

fn package_registers_with_a_real_claude_code(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    // Ada has Claude Code, though not on the PATH of her service manager; bob has none.
    if !machine.give_claude(prepared, "ada") {
        return;
    }
    machine.install(&prepared.package).ok();
    let setup = |user| {
        eventually("the setup unit has run", || {
            let state = machine.property(user, "claude-peers-setup.service", "ActiveState");
            let ran = machine.property(user, "claude-peers-setup.service", "ExecMainExitTimestampMonotonic");
            (state == "inactive" && ran != "0").then(|| machine.property(user, "claude-peers-setup.service", "Result"))
        })
    };
    assert_eq!((setup("ada"), setup("bob")), ("success".to_owned(), "success".to_owned()));
    let list = machine.ada("~/.local/bin/claude mcp list").ok();
    let line = list.lines().find(|line| line.starts_with("claude-peers:")).expect(&list);
    assert!(line.contains("/usr/bin/claude-peers-mcp") && line.contains("Connected"), "{list}");
    assert!(!machine.path("/home/bob/.claude.json").exists());

    // A login does not restore a removed entry or replace a changed one.
    let doctor = machine.ada("claude-peers doctor --json");
    assert_eq!(doctor.json()["ok"], true, "{doctor:?}");
}
