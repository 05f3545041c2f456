//! Numbered mail between peers of two machines, both ways, and whether all of it arrives as promised: each message once, in order, none marked
//! as a possible repeat, and each reported as delivered to its sender.

use crate::{
    support::{
        events::{Events, Peer},
        eventually,
    },
    world::Machine,
};
use serde_json::{Value, json};

/// No limit stands in the way of the mail.
pub const UNLIMITED: [(&str, &str); 2] = [("CLAUDE_PEERS_RATE_LIMIT", "0"), ("CLAUDE_PEERS_WAITING_LIMIT", "100000")];

/// Two peers, each on a machine of its own, and how much they have written to each other.
pub struct Traffic {
    peers: [Peer; 2],
    streams: [Events; 2],
    names: [String; 2],
    sent: usize,
}

impl Traffic {
    /// A connected peer on each machine, which that of the other machine can see.
    pub fn between(machines: [&Machine; 2]) -> Self {
        let peers = machines
            .map(|machine| Peer::register(&machine.broker.http(), "one", json!({"cwd": format!("/src/of-{}", machine.name)})));
        let streams = [0, 1].map(|at| peers[at].follow(&machines[at].broker.http()));
        let names = machines.map(|machine| format!("of-{0}@{0}", machine.name));
        machines[0].sees(&names[1]);
        machines[1].sees(&names[0]);
        Self { peers, streams, names, sent: 0 }
    }

    /// The name on the other machine of the peer on this one.
    pub fn name(&self, at: usize) -> &str {
        &self.names[at]
    }

    /// Each peer writes this many further messages to the other. Returns the ids of the last.
    pub fn send(&mut self, machines: [&Machine; 2], messages: usize) -> [Value; 2] {
        let mut last = [Value::Null, Value::Null];
        for number in self.sent..self.sent + messages {
            for at in [0, 1] {
                let message = json!({"to": self.names[1 - at], "text": number.to_string()});
                let sent = self.peers[at].over(&machines[at].broker.http()).post("/v1/send", &message).json();
                last[at] = sent["messageId"].clone();
            }
        }
        self.sent += messages;
        last
    }

    /// Waits until all that was written is there, and checks it.
    pub fn arrives(self, machines: [&Machine; 2]) {
        for (machine, peer) in machines.iter().zip(&self.peers) {
            self.arrives_at(machine, peer);
        }
        for machine in machines {
            eventually("all are delivered for their senders", || {
                (machine.broker.count("SELECT count(*) FROM message WHERE state <> 2") == 0).then_some(())
            });
        }
        drop(self.streams);
    }

    fn arrives_at(&self, machine: &Machine, peer: &Peer) {
        let count = format!("SELECT count(*) FROM message WHERE to_peer = '{}'", peer.id);
        let all = i64::try_from(self.sent).unwrap();
        eventually("all have arrived", || (machine.broker.count(&count) >= all).then_some(()));
        let http = peer.over(&machine.broker.http());
        let mut texts = Vec::new();
        loop {
            let taken = http.post("/v1/take", &json!({"lease": format!("l{}", texts.len()), "route": "check_messages"})).json();
            let batch = taken["messages"].as_array().unwrap().clone();
            if batch.is_empty() {
                break;
            }
            assert!(batch.iter().all(|message| message.get("repeat").is_none()), "nobody was shown them before");
            texts.extend(batch.iter().map(|message| message["text"].as_str().unwrap().to_owned()));
            let read: Vec<Value> = batch.iter().map(|message| json!({"id": message["id"], "outcome": "delivered"})).collect();
            http.post("/v1/acknowledge", &json!({"route": "check_messages", "messages": read})).json();
        }
        let expected: Vec<String> = (0..self.sent).map(|number| number.to_string()).collect();
        assert_eq!(texts, expected, "{}: in order, each once", machine.name);
    }
}
