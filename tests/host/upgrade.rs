//! An upgrade under load refuses and loses nothing, and a stopped service stays stopped.

use crate::{
    Test,
    machine::{Machine, eventually},
    prepare::{Prepared, Release},
};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

pub const TESTS: &[(&str, Test)] =
    &[("upgrade::upgrade_under_load_refuses_and_loses_nothing", upgrade_under_load_refuses_and_loses_nothing)];

/// Sends requests over one socket, each on a new connection, until told to stop, and records each status.
pub fn ask_for_ever(name: &str, address: &str) -> String {
    format!(
        "while [ ! -e ~/stop ]; do curl -s -o /dev/null -w '%{{http_code}}\\n' -H 'claude-peers-api: 1' {address} >>~/{name} || echo refused >>~/{name}; done"
    )
}

fn upgrade_under_load_refuses_and_loses_nothing(prepared: &Prepared) {
    for release in [Release::Bookworm, Release::Trixie] {
        let machine = Machine::boot(prepared, release);
        machine.install(&prepared.previous).ok();
        machine.override_unit("ada", "claude-peers.service", "[Service]\nEnvironment=CLAUDE_PEERS_RATE_LIMIT=0\n");
        machine.bob("systemctl --user stop claude-peers.socket claude-peers-tcp.socket claude-peers.service").ok();
        let (mut a, mut b) = (machine.session("ada", "a"), machine.session("ada", "b"));
        let b_id = b.id();
        let before = machine.property("ada", "claude-peers.service", "MainPID");
        let sockets = "stat -c %i $XDG_RUNTIME_DIR/claude-peers/broker.sock";
        let socket = machine.ada(sockets).ok();

        let (installed, mut sent) = (AtomicBool::new(false), 0);
        std::thread::scope(|scope| {
            let unix = "--unix-socket $XDG_RUNTIME_DIR/claude-peers/broker.sock http://localhost/v1/status";
            for (name, address) in [("unix", unix), ("tcp", "http://127.0.0.1:7899/health")] {
                let machine = &machine;
                scope.spawn(move || machine.ada(&ask_for_ever(name, address)).ok());
            }
            scope.spawn(|| {
                machine.install(&prepared.package).ok();
                installed.store(true, Relaxed);
            });
            // The load runs before, during and after the upgrade.
            let mut after = 0;
            while after < 20 {
                let text = format!("message {sent}");
                a.send(&b_id, &text);
                sent += 1;
                after += usize::from(installed.load(Relaxed));
            }
            machine.ada("touch ~/stop").ok();
        });
        let got: Vec<_> = (0..sent).map(|_| b.pushed()["content"].as_str().unwrap().to_owned()).collect();
        let expected: Vec<_> = (0..sent).map(|n| format!("message {n}")).collect();
        assert_eq!(got, expected);
        assert_eq!(b.pushes_so_far().len(), 0, "each came once");
        for name in ["unix", "tcp"] {
            let answers = machine.ada(&format!("sort ~/{name} | uniq -c")).ok();
            let [count, status] = answers.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{name}: {answers}") };
            assert!(status == "200" && count.parse::<u32>().unwrap() > 20, "{name}: {answers}");
        }
        assert_ne!(machine.property("ada", "claude-peers.service", "MainPID"), before, "the new broker serves");
        assert_eq!(machine.ada(sockets).ok(), socket, "the socket is the same");
        let version = machine.root("dpkg-query -W -f '${Version}' claude-peers").ok();
        assert!(!version.contains("previous"), "{version}");

        for unit in ["claude-peers.socket", "claude-peers.service"] {
            assert_eq!(machine.property("bob", unit, "ActiveState"), "inactive", "{unit}");
        }
        assert_ne!(machine.property("bob", "claude-peers-tcp.socket", "ActiveState"), "active");
        // The sessions were never restarted.
        eventually("both are connected", || {
            let peers = machine.ada("claude-peers peers --json").json();
            let connected = peers["peers"].as_array()?.iter().filter(|peer| peer["status"] == "connected").count();
            (connected == 2).then_some(())
        });
    }
}
