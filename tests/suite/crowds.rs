//! Slow clients and floods of connections wait or are refused, and disturb nobody else.

use crate::support::{
    Broker, Session,
    events::Peer,
    eventually, folder,
    http::{Answer, Conversation},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::fs;

/// How much a flood may grow the broker's memory, in KiB. It is generous, because it only detects leaks.
const LEFT_BEHIND: u64 = 64 * 1024;

/// A broker with one peer whose name is `victim`.
fn broker() -> Broker {
    let broker = Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    Peer::register(&broker.http(), "victim", json!({"cwd": "/victim"}));
    broker
}

fn is_well(broker: &Broker) {
    for http in [broker.http(), broker.tcp()] {
        assert_eq!(http.post("/v1/send", &json!({"to": "victim", "text": "still there?"})).status, 200);
    }
}

#[test]
fn slow_clients_delay_nobody_else() {
    let broker = broker();
    for http in [broker.http(), broker.tcp()] {
        let body = json!({"to": "victim", "text": "slow"}).to_string();
        let whole = http.written("POST", "/v1/send", &[("Content-Type", "application/json")], &body);
        let halves =
            [("half a head", 20), ("a head without its end", whole.len() - body.len() - 2), ("half a body", whole.len() - 9)];
        let mut slow: Vec<(&str, usize, Conversation)> = halves
            .iter()
            .cycle()
            .take(60)
            .map(|(what, length)| {
                let mut conversation = http.converse();
                conversation.say(&whole[..*length]).unwrap();
                (*what, *length, conversation)
            })
            .collect();
        is_well(&broker);
        for (what, length, conversation) in &mut slow {
            conversation.say(&whole[*length..]).unwrap();
            assert_eq!(conversation.answer().unwrap().status, 200, "{what}");
        }
    }
}

/// Raises this process's limit on open files to the maximum.
fn raise_own_limit() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.unwrap_or(u64::MAX)
}

#[test]
fn idle_connections_do_not_displace_working_ones() {
    let idle = 2_000;
    if raise_own_limit() < idle as u64 + 500 {
        return eprintln!("SKIPPED: this process may not open {idle} connections (ulimit -Hn)");
    }
    let broker = broker();
    flood(&broker, idle, 1_024);
}

#[test]
fn low_file_limit_means_fewer_connections() {
    let mut broker = Broker::prepared(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    broker.launch_as(broker.command_after("ulimit -n 256"));
    Peer::register(&broker.http(), "victim", json!({"cwd": "/victim"}));
    flood(&broker, 200, 42);
}

#[test]
fn broker_raises_its_file_limit() {
    let mut broker = Broker::prepared(&[]);
    broker.launch_as(broker.command_after("ulimit -S -n 256"));
    let limits = fs::read_to_string(format!("/proc/{}/limits", broker.pid())).unwrap();
    let files: Vec<&str> =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap().split_whitespace().collect();
    let (soft, hard): (u64, u64) = (files[0].parse().unwrap(), files[1].parse().unwrap_or(u64::MAX));
    assert!(soft == hard || soft > 2 * 1_024, "soft {soft}, hard {hard}");
}

/// Opens `idle` connections to each socket in turn, of which only `places` are served, and checks that others are served.
fn flood(broker: &Broker, idle: usize, places: usize) {
    let place = folder();
    let mut session = Session::start(broker, place.path(), "session");
    let id = session.id();
    let before = broker.memory();
    for (flooded, other) in [(broker.tcp(), broker.http()), (broker.http(), broker.tcp())] {
        let mut connections: Vec<Conversation> = (0..idle).map(|_| flooded.converse()).collect();
        // Connections are accepted in order, so these found no place. (One may still get the place of an earlier one that was
        // closed for its silence, and is closed in the end as well.)
        let refused: Vec<Answer> = connections[places..].iter_mut().filter_map(|late| late.answer().ok()).collect();
        assert!(!refused.is_empty(), "nobody was refused");
        for answer in refused {
            assert_eq!((answer.status, answer.code().as_str()), (503, "busy"));
        }
        let sent = other.post("/v1/send", &json!({"to": id, "text": "can you hear me?"})).json();
        assert_eq!(session.pushed()["meta"]["message_id"], sent["messageId"], "a session that is connected goes on");
        assert_eq!(other.get("/v1/status").json()["pid"], broker.pid());
        assert!(broker.memory() < before + LEFT_BEHIND, "{} KiB before, {} KiB under the flood", before, broker.memory());
        drop(connections);
        eventually("there are places again", || (flooded.get("/v1/hello").status == 200).then_some(()));
    }
    assert!(broker.memory() < before + LEFT_BEHIND, "{} KiB before, {} KiB after the flood", before, broker.memory());
    is_well(broker);
}
