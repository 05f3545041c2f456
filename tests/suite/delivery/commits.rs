//! Commits fail at random under load: nothing that is counted drifts, and nothing that waits is stranded.

use crate::support::{Broker, events::Peer, http::Http, random::Random};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::thread;

/// Rounds of load; after each, the broker's words are held against the table.
const ROUNDS: u32 = 25;
/// Settings that take the limits out of the way of a load.
const UNLIMITED: [(&str, &str); 2] = [("CLAUDE_PEERS_RATE_LIMIT", "0"), ("CLAUDE_PEERS_WAITING_LIMIT", "1000000")];

/// Makes a part of the commits fail: a row without its parent is seen only when the transaction ends.
const BREAK_COMMITS: &str = "
    CREATE TABLE parent (id INTEGER PRIMARY KEY);
    CREATE TABLE child (parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE breaking (percent INTEGER);
    INSERT INTO breaking VALUES (25);
    CREATE TRIGGER break_insert AFTER INSERT ON message WHEN abs(random() % 100) < (SELECT percent FROM breaking)
        BEGIN INSERT INTO child VALUES (1); END;
    CREATE TRIGGER break_update AFTER UPDATE ON message WHEN abs(random() % 100) < (SELECT percent FROM breaking)
        BEGIN INSERT INTO child VALUES (1); END;";

#[test]
fn what_waits_is_known_however_commits_fail() {
    let broker = Broker::with(&UNLIMITED);
    let mut random = Random::seeded();
    eprintln!("to repeat: CLAUDE_PEERS_TEST_SEED={}", random.seed());
    Connection::open(broker.database()).unwrap().execute_batch(BREAK_COMMITS).unwrap();
    let http = broker.http();
    let peers = ["eel", "cod", "ray"].map(|name| Peer::register(&http, name, json!({"cwd": format!("/srv/{name}")})));
    let (mut accepted, mut broken) = (0, 0);
    for round in 0..ROUNDS {
        let counts = thread::scope(|scope| {
            let lives: Vec<_> = (0..peers.len())
                .map(|me| {
                    let (random, peers, http) = (random.branch(), &peers, &http);
                    scope.spawn(move || live(http, me, peers, random, round))
                })
                .collect();
            lives.into_iter().map(|life| life.join().unwrap()).collect::<Vec<_>>()
        });
        accepted += counts.iter().map(|count| count.0).sum::<i64>();
        broken += counts.iter().map(|count| count.1).sum::<u32>();
        compare(&broker, &peers);
    }
    assert!(broken > 20, "only {broken} commits failed: nothing was tried");
    assert_eq!(broker.count("SELECT count(*) FROM message"), accepted, "stored, but not said so, or the other way round");

    Connection::open(broker.database()).unwrap().execute("UPDATE breaking SET percent = 0", []).unwrap();
    for peer in &peers {
        let peer = Peer::register(&peer.over(&http), "a-new-process", json!({})).over(&http);
        let all = json!({"lease": "all", "route": "check_messages", "maxBytes": u32::MAX});
        let taken = peer.post("/v1/take", &all).json();
        assert_eq!(taken["more"], 0, "what waits cannot be taken");
        let outcomes: Vec<Value> = messages(&taken).map(|id| json!({"id": id, "outcome": "delivered"})).collect();
        peer.post("/v1/acknowledge", &json!({"route": "check_messages", "messages": outcomes})).json();
    }
    compare(&broker, &peers);
    assert_eq!(broker.count("SELECT count(*) FROM message WHERE state <> 2"), 0);
}

fn messages(taken: &Value) -> impl Iterator<Item = &Value> {
    taken["messages"].as_array().unwrap().iter().map(|message| &message["id"])
}

/// One peer's part of a round; how many of its messages were accepted, and how many of its requests broke.
fn live(http: &Http, me: usize, peers: &[Peer], mut random: Random, round: u32) -> (i64, u32) {
    let my = peers[me].over(http);
    let (mut accepted, mut broken) = (0, 0);
    let mut post = |path: &str, body: &Value| {
        let answer = my.post(path, body);
        let is_broken = answer.status == 500;
        broken += u32::from(is_broken);
        if is_broken { None } else { Some(answer.json()) }
    };
    for step in 0..12 {
        let to = &peers[(me + 1 + random.below(2) as usize) % 3].id;
        match random.below(3) {
            0 => {
                let route = ["tool_result", "check_messages"][random.below(2) as usize];
                let take = json!({"lease": format!("{round}-{step}"), "route": route, "maxBytes": 1 + random.below(60)});
                let Some(taken) = post("/v1/take", &take) else { continue };
                let outcome = ["delivered", "released", "announced"][random.below(3) as usize];
                let outcomes: Vec<Value> = messages(&taken).map(|id| json!({"id": id, "outcome": outcome})).collect();
                post("/v1/acknowledge", &json!({"route": route, "messages": outcomes}));
            }
            1 if step > 0 => {
                let all = json!({"to": "@machine", "text": format!("{me} to all {round} {step}")});
                accepted += post("/v1/send", &all).map_or(0, |sent| sent["receipts"].as_array().unwrap().len() as i64);
            }
            _ => {
                let text = format!("{me} {round} {step}");
                accepted += i64::from(post("/v1/send", &json!({"to": to, "text": text})).is_some());
            }
        }
    }
    (accepted, broken)
}

/// The broker tells what the table holds.
fn compare(broker: &Broker, peers: &[Peer]) {
    let listed = broker.http().get("/v1/peers?scope=machine").json();
    for peer in peers {
        let stored = broker.count(&format!("SELECT count(*) FROM message WHERE to_peer = '{}' AND waiting = 1", peer.id));
        let shown = listed["peers"].as_array().unwrap().iter().find(|shown| shown["id"] == peer.id.as_str()).unwrap();
        assert_eq!(shown["waiting"], stored, "{}", peer.name);
    }
    let stored = broker.count("SELECT count(*) FROM message WHERE waiting = 1");
    assert_eq!(broker.http().get("/v1/status").json()["database"]["waiting"], stored);
}
