//! `status`: the broker, and all peers.

use super::peers;
use crate::{
    client::Client,
    console::{Failure, Look, Out, Tone, size, span},
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
