//! `status`: the broker, and all peers.

use super::peers;
use crate::{
    client::Client,
    console::{
        exit::Failure,
        out::{Look, Out, Tone, size, span},
    },
    platform::clock,
    wire::{BrokerStatus, ListenerStatus, Peer, Scope, Timestamp, text::printable_line},
};
use serde::Serialize;

#[derive(Serialize)]
struct Overview {
    broker: BrokerStatus,
    peers: Vec<Peer>,
}

pub async fn run(broker: &Client, out: Out) -> Result<(), Failure> {
    let overview =
        Overview { broker: broker.get("/v1/status", None).await?, peers: peers::list(broker, Scope::Machine, None).await?.peers };
    out.answer(&overview, |overview, look| render(overview, clock::now(), look))
}

fn render(overview: &Overview, now: Timestamp, look: Look) -> String {
    let Overview { broker, peers } = overview;
    let uptime = u64::try_from((now.as_millis() - broker.started_at.as_millis()) / 1_000).unwrap_or(0);
    let database = &broker.database;
    let mut facts = vec![(
        "broker",
        format!("{}, version {}, pid {}, up {}", look.paint(Tone::Good, "running"), broker.version, broker.pid, span(uptime)),
    )];
    facts.extend(broker.listeners.iter().map(|listener| ("socket", socket(listener, look))));
    facts.push(("database", format!("{}, {}", printable_line(&database.path), size(database.bytes))));
    facts.push(("messages", format!("{} stored, {} waiting", database.messages, database.waiting)));
    facts.extend(broker.notices.iter().map(|notice| ("notice", look.paint(Tone::Warn, printable_line(notice)))));
    facts.push(("peers", broker.peers.to_string()));
    let table = if peers.is_empty() { String::new() } else { format!("\n{}", peers::table(peers, now, look)) };
    look.facts(&facts) + &table
}

fn socket(listener: &ListenerStatus, look: Look) -> String {
    let state = match (&listener.problem, listener.listening) {
        (Some(problem), _) => look.paint(Tone::Bad, format!("not served: {}", printable_line(problem))),
        (None, false) => look.paint(Tone::Warn, "not served"),
        (None, true) if listener.origin == "own" => look.paint(Tone::Good, "served"),
        (None, true) => look.paint(Tone::Good, format!("served for the {}", listener.origin)),
    };
    format!("{} {}, {state}", listener.kind, printable_line(&listener.address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_socket_that_is_not_served_says_why() {
        let broker: BrokerStatus = serde_json::from_value(json!({
            "version": "0.1.0", "api": 1, "pid": 7, "startedAt": "1970-01-01T00:00:00Z", "peers": 0,
            "listeners": [
                {"kind": "unix", "address": "/run/broker.sock", "listening": true, "origin": "service manager"},
                {"kind": "tcp", "address": "127.0.0.1:7899", "listening": false, "origin": "own", "problem": "held by bun (pid 9)"},
            ],
            "database": {"path": "/home/u/.claude-peers.db", "bytes": 20_480, "waiting": 1, "messages": 3},
            "notices": ["the database was damaged"],
        }))
        .expect("a status");
        let expected = "\
broker    running, version 0.1.0, pid 7, up 1 min
socket    unix /run/broker.sock, served for the service manager
socket    tcp 127.0.0.1:7899, not served: held by bun (pid 9)
database  /home/u/.claude-peers.db, 20 KiB
messages  3 stored, 1 waiting
notice    the database was damaged
peers     0
";
        assert_eq!(render(&Overview { broker, peers: Vec::new() }, Timestamp::from_millis(90_000), Look::PLAIN), expected);
    }
}
