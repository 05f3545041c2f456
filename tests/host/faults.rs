//! Sessions and mail survive a killed, hung or crashing broker and a reboot.

use crate::{
    Test, doctor,
    machine::{Machine, eventually},
    prepare::{Prepared, Release},
    support::Session,
};

pub const TESTS: &[(&str, Test)] = &[
    ("faults::killed_broker_is_restarted", killed_broker_is_restarted),
    ("faults::hung_broker_is_restarted", hung_broker_is_restarted),
    ("faults::crash_loop_is_reported_and_fixed", crash_loop_is_reported_and_fixed),
    ("faults::mail_survives_a_reboot", mail_survives_a_reboot),
];

fn broker_pid(machine: &Machine) -> String {
    machine.property("ada", "claude-peers.service", "MainPID")
}

/// Checks that a message from one session to the other arrives.
fn talk(from: &mut Session, to: &mut Session, text: &str) {
    let id = to.id();
    from.send(&id, text);
    assert_eq!(to.pushed()["content"], text);
}

/// Waits until another broker serves and both sessions, which were not restarted, are connected.
fn both_come_back(machine: &Machine, before: &str, sessions: [&mut Session; 2]) {
    eventually("another broker", || Some(broker_pid(machine)).filter(|pid| pid != before && pid != "0"));
    let [a, b] = sessions;
    eventually("both are connected again", || {
        let peers = machine.ada("claude-peers peers --json").json();
        let connected = peers["peers"].as_array()?.iter().filter(|peer| peer["status"] == "connected").count();
        (connected == 2).then_some(())
    });
    talk(a, b, "still there?");
    talk(b, a, "yes");
}

fn killed_broker_is_restarted(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.install(&prepared.package).ok();
    let (mut a, mut b) = (machine.session("ada", "a"), machine.session("ada", "b"));
    talk(&mut a, &mut b, "hello");
    for _ in 0..3 {
        let pid = broker_pid(&machine);
        machine.ada(&format!("kill -9 {pid}")).ok();
        both_come_back(&machine, &pid, [&mut a, &mut b]);
    }
    assert_eq!(machine.property("ada", "claude-peers.service", "NRestarts"), "3");
}

fn hung_broker_is_restarted(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.install(&prepared.package).ok();
    machine.override_unit("ada", "claude-peers.service", "[Service]\nWatchdogSec=2\n");
    let (mut a, mut b) = (machine.session("ada", "a"), machine.session("ada", "b"));
    talk(&mut a, &mut b, "hello");
    let pid = broker_pid(&machine);
    machine.ada(&format!("kill -STOP {pid}")).ok();
    both_come_back(&machine, &pid, [&mut a, &mut b]);
    let log = machine.ada("journalctl --user -u claude-peers -o cat --no-pager").ok();
    assert!(log.contains("Watchdog timeout"), "{log}");
}

fn crash_loop_is_reported_and_fixed(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.install(&prepared.package).ok();
    // With an invalid setting, the broker exits on every start.
    machine.override_unit("ada", "claude-peers.service", "[Service]\nRestartSec=50ms\nEnvironment=CLAUDE_PEERS_EXPIRY=soon\n");
    let mut session = machine.session("ada", "a");
    assert!(session.tool_error("list_peers", serde_json::json!({"scope": "machine"})).contains("doctor"));
    eventually("systemd gives up", || {
        (machine.property("ada", "claude-peers.service", "Result") == "exit-code"
            && machine.property("ada", "claude-peers.socket", "ActiveState") == "failed")
            .then_some(())
    });
    let doctor = machine.ada("claude-peers doctor --json");
    assert_eq!(doctor.code, 1);
    let text = doctor.json().to_string();
    assert!(text.contains("CLAUDE_PEERS_EXPIRY") && text.contains("doctor --fix"), "{text}");

    // Once the cause is fixed, one command brings the broker back, and the session reconnects by itself.
    machine.override_unit("ada", "claude-peers.service", "[Service]\nRestartSec=50ms\n");
    doctor::found_by(&machine, "claude-peers doctor --fix --json", "service", "ok", &["listens on both sockets"]);
    let peers = eventually("the session is connected", || {
        let peers = machine.ada("claude-peers peers --json").json()["peers"].clone();
        (peers[0]["status"] == "connected").then_some(peers)
    });
    assert_eq!(peers.as_array().unwrap().len(), 1);
    assert_eq!(session.peers(), [] as [serde_json::Value; 0]);
}

fn mail_survives_a_reboot(prepared: &Prepared) {
    for orderly in [true, false] {
        let mut machine = Machine::boot(prepared, Release::Bookworm);
        machine.install(&prepared.package).ok();
        let (mut a, mut b) = (machine.session("ada", "session-a"), machine.session("ada", "session-b"));
        let (a_id, b_id) = (a.id(), b.id());
        b.close();
        let receipt = a.send(&b_id, "Read this tomorrow");
        assert_eq!(receipt["state"], "queued");
        // An open shell in the machine would be stopped, not ended, at shutdown and delay it.
        drop(a);
        if orderly {
            machine.root("systemctl poweroff --no-block").ok();
            machine.halted();
        } else {
            machine.cut_power();
        }
        machine.start();
        assert_eq!(machine.property("ada", "claude-peers.service", "ActiveState"), "inactive");
        let mut b = machine.session("ada", "session-b");
        let message = b.pushed();
        assert_eq!((&message["content"], &message["meta"]["from_id"]), (&"Read this tomorrow".into(), &a_id.into()), "{message}");
        assert_eq!(b.id(), b_id);
    }
}
