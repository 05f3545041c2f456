//! Programs are killed at random moments under load: nothing is lost, nothing is doubled, and the order stays.

use crate::{
    hub::Hub,
    support::{events::Peer, eventually, installed, random::Random},
    world::Machine,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How many messages go each way. Kills go on as long as they are sent. `CLAUDE_PEERS_TEST_LINK_MESSAGES` sets another number.
const MESSAGES: usize = 400;

#[test]
fn mail_survives_kills_at_random_moments() {
    if !installed("nats-server") {
        return;
    }
    let messages = std::env::var("CLAUDE_PEERS_TEST_LINK_MESSAGES").map_or(MESSAGES, |number| number.parse().unwrap());
    let mut hub = Hub::start();
    let settings = [("CLAUDE_PEERS_RATE_LIMIT", "0"), ("CLAUDE_PEERS_WAITING_LIMIT", "100000")];
    let mut machines = ["laptop", "desktop"].map(|name| Machine::linked_with(name, &hub, &settings));
    let peers = machines
        .each_ref()
        .map(|machine| Peer::register(&machine.broker.http(), "one", json!({"cwd": format!("/src/of-{}", machine.name)})));
    let _streams = [0, 1].map(|at| peers[at].follow(&machines[at].broker.http()));
    machines[0].sees("of-desktop@desktop");
    machines[1].sees("of-laptop@laptop");

    // Each peer writes to that of the other machine, repeating under its key what got no answer.
    let senders = [0, 1].map(|at| {
        let (broker, secret, to) =
            (machines[at].broker.shared(), peers[at].secret.clone(), ["of-desktop@desktop", "of-laptop@laptop"][at]);
        std::thread::spawn(move || {
            for number in 0..messages {
                let message = json!({"to": to, "text": number.to_string(), "key": format!("k{number}")});
                eventually("a send is answered", || {
                    let answer = broker.http().as_peer(&secret).try_post("/v1/send", &message).ok()?;
                    (answer.status == 200).then_some(())
                });
                std::thread::sleep(Duration::from_millis(20)); // the load, not a wait
            }
        })
    });
    let mut random = Random::seeded();
    eprintln!("CLAUDE_PEERS_TEST_SEED={}", random.seed());
    let (mut kills, start) = (0, Instant::now());
    while senders.iter().any(|sender| !sender.is_finished()) {
        std::thread::sleep(Duration::from_millis(random.below(400))); // the moment of a kill
        match random.below(10) {
            0 => {
                hub.kill();
                std::thread::sleep(Duration::from_millis(random.below(500)));
                hub.launch();
            }
            1 | 2 => machines[usize::try_from(random.below(2)).unwrap()].broker.restart(),
            _ => {
                let machine = &mut machines[usize::try_from(random.below(2)).unwrap()];
                machine.kill_link();
                machine.link();
            }
        }
        kills += 1;
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    eprintln!("{kills} kills in {:?}", start.elapsed());

    let expected: Vec<String> = (0..messages).map(|number| number.to_string()).collect();
    for at in [0, 1] {
        let (machine, peer) = (&machines[at], peers[at].again(&machines[at].broker.http()));
        let http = peer.over(&machine.broker.http());
        eventually("all have arrived", || {
            let count = format!("SELECT count(*) FROM message WHERE to_peer = '{}'", peer.id);
            (machine.broker.count(&count) >= i64::try_from(messages).unwrap()).then_some(())
        });
        let mut texts = Vec::new();
        while texts.len() < messages {
            let taken = http.post("/v1/take", &json!({"lease": format!("l{}", texts.len()), "route": "check_messages"})).json();
            let batch = taken["messages"].as_array().unwrap().clone();
            assert!(!batch.is_empty(), "{} of {messages} arrived", texts.len());
            assert!(batch.iter().all(|message| message.get("repeat").is_none()), "nobody was shown them before");
            texts.extend(batch.iter().map(|message| message["text"].as_str().unwrap().to_owned()));
            let read: Vec<Value> = batch.iter().map(|message| json!({"id": message["id"], "outcome": "delivered"})).collect();
            http.post("/v1/acknowledge", &json!({"route": "check_messages", "messages": read})).json();
        }
        assert_eq!(texts, expected, "in order, each once");
        assert_eq!(http.post("/v1/take", &json!({"lease": "end", "route": "check_messages"})).json()["messages"], json!([]));
    }
    // Every receipt comes back.
    for machine in &machines {
        eventually("all are delivered for their senders", || {
            let open = machine.broker.count("SELECT count(*) FROM message WHERE state <> 2 OR link > 0");
            (open == 0).then_some(())
        });
    }
}
