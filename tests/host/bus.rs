//! The broker on a real session bus: introspection, calls, signals and activation.

use crate::{
    Test,
    machine::Machine,
    prepare::{Prepared, Release},
};
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

pub const TESTS: &[(&str, Test)] = &[
    ("bus::call_starts_the_broker_and_returns_its_status", call_starts_the_broker_and_returns_its_status),
    ("bus::monitor_sees_peers_come_and_go", monitor_sees_peers_come_and_go),
];

const BROKER: &str = "dev.claudepeers.Broker1 /dev/claudepeers/Broker1";
const INTERFACE: &str = "dev.claudepeers.Broker1";

fn call_starts_the_broker_and_returns_its_status(prepared: &Prepared) {
    for release in [Release::Bookworm, Release::Trixie] {
        let machine = Machine::boot(prepared, release);
        machine.install(&prepared.package).ok();
        assert_eq!(machine.property("ada", "claude-peers.service", "ActiveState"), "inactive");
        let peers = machine.ada(&format!("busctl --user get-property {BROKER} {INTERFACE} PeerCount")).ok();
        assert_eq!((peers.trim(), machine.property("ada", "claude-peers.service", "ActiveState").as_str()), ("u 0", "active"));

        let text = machine.ada(&format!("busctl --user introspect --no-pager {BROKER} {INTERFACE}")).ok();
        for member in [
            ".ListPeers",
            ".MessageState",
            ".Send",
            ".SetLogLevel",
            ".Status",
            ".Stop",
            ".LogLevel",
            ".PeerCount",
            ".Version",
            ".WaitingCount",
            ".MessageStateChanged",
            ".PeerJoined",
            ".PeerLeft",
        ] {
            assert!(text.lines().any(|line| line.starts_with(&format!("{member} "))), "{member}: {text}");
        }

        let mut session = machine.session("ada", "session-1");
        let id = session.id();
        let sent =
            machine.ada(&format!("busctl --user --json=short call {BROKER} {INTERFACE} Send 'ssa{{sv}}' {id} 'By the bus' 0"));
        assert_eq!(session.pushed()["content"], "By the bus", "{sent:?}");
        let message = sent.json()["data"][0].as_str().unwrap().to_owned();
        let state = machine.ada(&format!("busctl --user --json=short call {BROKER} {INTERFACE} MessageState s {message}"));
        let told = machine.ada(&format!("claude-peers message {message} --json"));
        assert_eq!(state.json()["data"][0], told.json()["state"], "{state:?} {told:?}");

        let bus = machine.ada(&format!("busctl --user --json=short call {BROKER} {INTERFACE} Status")).json();
        let status = machine.ada("claude-peers status --json").json();
        for field in ["version", "pid", "peers", "startedAt"] {
            assert_eq!(bus["data"][0][field]["data"], status["broker"][field], "{field}");
        }
        let unknown = machine.ada(&format!("busctl --user call {BROKER} {INTERFACE} Send 'ssa{{sv}}' nobody hello 0"));
        assert_ne!(unknown.code, 0);
        assert!(unknown.err.contains("nobody"), "{unknown:?}");

        machine.ada(&format!("busctl --user call {BROKER} {INTERFACE} SetLogLevel s debug")).ok();
        let level = machine.ada(&format!("busctl --user get-property {BROKER} {INTERFACE} LogLevel")).ok();
        assert_eq!(level.trim(), "s \"debug\"");
        machine.ada(&format!("busctl --user call {BROKER} {INTERFACE} Stop")).ok();
    }
}

fn monitor_sees_peers_come_and_go(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.install(&prepared.package).ok();
    machine.ada("claude-peers status").ok();
    let mut command = machine.command("ada", "busctl");
    command.args(["--user", "--json=short", "monitor", INTERFACE]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut monitor = command.spawn().unwrap();
    // The monitor prints this once it listens.
    let mut began = BufReader::new(monitor.stderr.take().unwrap()).lines();
    assert!(began.next().unwrap().unwrap().contains("Monitoring"));
    let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut signal = |member: &str| {
        let text = lines.find(|line| line.contains(&format!("\"{member}\""))).unwrap_or_else(|| panic!("no {member}"));
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["payload"]["data"].clone()
    };
    let mut session = machine.session("ada", "session-1");
    let id = session.id();
    assert_eq!(signal("PeerJoined")[0], *id);
    machine.ada(&format!("claude-peers send {id} hello")).ok();
    let changed = signal("MessageStateChanged");
    assert_eq!((&changed[2], &changed[3]), (&serde_json::json!(id), &serde_json::json!("queued")));
    assert_eq!(session.pushed()["content"], "hello");
    session.close();
    assert_eq!(signal("PeerLeft")[0], *id);
    drop(monitor.kill());
    drop(monitor.wait());
}
