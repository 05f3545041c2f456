//! Two users of one machine have their own brokers, peers and mail, and cannot reach each other's.

use crate::{
    Test,
    machine::{Machine, USERS, eventually},
    prepare::{Prepared, Release},
};

pub const TESTS: &[(&str, Test)] = &[
    ("users::users_cannot_reach_each_other", users_cannot_reach_each_other),
    ("users::taken_port_degrades_no_user", taken_port_degrades_no_user),
    ("users::system_users_have_a_broker", system_users_have_a_broker),
];

fn users_cannot_reach_each_other(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.install(&prepared.package).ok();
    let (mut a1, mut a2) = (machine.session("ada", "a1"), machine.session("ada", "a2"));
    let (mut b1, mut b2) = (machine.session("bob", "b1"), machine.session("bob", "b2"));
    let ids = [a1.id(), a2.id(), b1.id(), b2.id()];
    for (session, other) in [(&mut a1, &ids[1]), (&mut a2, &ids[0]), (&mut b1, &ids[3]), (&mut b2, &ids[2])] {
        let peers = session.peers();
        assert_eq!(peers.len(), 1, "{peers:?}");
        assert_eq!(peers[0]["id"], **other);
    }
    a1.send(&ids[1], "to ada's second");
    b1.send(&ids[3], "to bob's second");
    assert_eq!((&a2.pushed()["content"], &b2.pushed()["content"]), (&"to ada's second".into(), &"to bob's second".into()));
    assert!(a1.tool_error("send_message", serde_json::json!({"targetPeerId": ids[2], "message": "hello bob"})).contains(&ids[2]));

    // Only one user gets the port. Everything else works for the other, who is told why the port is taken.
    let has_port = |user| machine.property(user, "claude-peers-tcp.socket", "ActiveState") == "active";
    let (owner, other) = if has_port("ada") { ("ada", "bob") } else { ("bob", "ada") };
    assert!(has_port(owner) && !has_port(other));
    let doctor = machine.run(other, "claude-peers doctor --json").json();
    let tcp = doctor["checks"].as_array().unwrap().iter().find(|finding| finding["check"] == "tcp-socket").unwrap();
    let held = format!("7899 is held by the claude-peers broker of user {owner}");
    assert!(tcp["state"] == "warning" && tcp["what"].as_str().unwrap().contains(&held), "{tcp}");
    assert_eq!(machine.run(owner, "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:7899/health").ok(), "200");

    // Neither socket accepts the other user, and nothing is stored.
    let refused = machine.run(other, "curl -s -w '%{http_code}' http://127.0.0.1:7899/health").ok();
    assert!(refused.ends_with("403"), "{refused}");
    let post = "-H 'Content-Type: application/json' -d '{\"scope\":\"machine\"}' http://127.0.0.1:7899/list-peers";
    let refused = machine.run(other, &format!("curl -s -w '%{{http_code}}' {post}")).ok();
    assert!(refused.ends_with("403"), "{refused}");
    let uid = machine.run(owner, "id -u").ok().trim().to_owned();
    let knock = format!("curl -s --unix-socket /run/user/{uid}/claude-peers/broker.sock http://localhost/v1/status");
    assert_eq!(machine.run(other, &knock).code, 7, "curl cannot connect");
    assert_ne!(
        machine
            .run(
                other,
                &format!(
                    "claude-peers --json peers; CLAUDE_PEERS_SOCKET=/run/user/{uid}/claude-peers/broker.sock claude-peers status"
                )
            )
            .code,
        0
    );
    assert_ne!(machine.run(other, &format!("cat ~{owner}/.claude-peers.db")).code, 0);
}

fn taken_port_degrades_no_user(prepared: &Prepared) {
    for release in [Release::Bookworm, Release::Trixie] {
        let mut machine = Machine::boot(prepared, release);
        machine.install(&prepared.package).ok();
        for rebooted in [false, true] {
            if rebooted {
                machine.cut_power();
                machine.start();
            }
            let port = |user| machine.property(user, "claude-peers-tcp.socket", "ActiveState");
            let (owner, other) = if port("ada") == "active" { ("ada", "bob") } else { ("bob", "ada") };
            assert_eq!(port(owner), "active");
            // Its own broker tries the port once more.
            machine.run(other, "claude-peers status").ok();
            eventually("the failed try is noted", || (port(other) == "inactive").then_some(()));
            for user in USERS {
                let state = machine.run(user, "systemctl --user is-system-running --wait");
                assert_eq!(state.out.trim(), "running", "{user}: {}", machine.run(user, "systemctl --user --failed").out);
            }
            // The first connection to the port starts its owner's broker.
            assert_eq!(machine.property(owner, "claude-peers.service", "ActiveState"), "inactive");
            machine.run(owner, "curl -sSf http://127.0.0.1:7899/health").ok();
            assert_eq!(machine.property(owner, "claude-peers.service", "ActiveState"), "active");
            // Once the port is free, the other user's next broker gets it.
            machine.run(owner, "systemctl --user stop claude-peers-tcp.socket claude-peers.service").ok();
            machine.run(other, "systemctl --user restart claude-peers.service && curl -sSf http://127.0.0.1:7899/health").ok();
            assert_eq!(port(other), "active");
        }
    }
}

/// Lima and Colima give their user a uid below 1000; root works in many containers.
fn system_users_have_a_broker(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.root("useradd --create-home --shell /bin/bash --uid 501 lima && loginctl enable-linger lima root").ok();
    machine.root("systemctl start user@501.service user@0.service").ok();
    machine.install(&prepared.package).ok();
    // `machine.root` has no login; a user's manager has.
    let root = "export XDG_RUNTIME_DIR=/run/user/0 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/0/bus;";
    for (user, login) in [("lima", ""), ("root", root)] {
        let run = |command: &str| machine.run(user, &format!("{login} {command}"));
        assert_eq!(run("systemctl --user is-active claude-peers.socket").out.trim(), "active", "{user}");
        let doctor = run("claude-peers doctor --json").json();
        let checks = doctor["checks"].as_array().unwrap();
        let of = |name: &str| checks.iter().find(|finding| finding["check"] == name).unwrap();
        assert!(
            ["ok", "skipped", "warning"].contains(&of("tcp-socket")["state"].as_str().unwrap()),
            "{user}: {}",
            of("tcp-socket")
        );
        assert_eq!(of("unix-socket")["state"], "ok", "{user}: {doctor}");
        assert!(run("claude-peers status").ok().contains("running"), "{user}");
        assert_eq!(run("systemctl --user --failed --no-legend").out, "", "{user}");
    }
}
