//! Peers without a process: the test registers them and follows their events over HTTP.

use super::http::{Http, Wire};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};

/// A registered peer.
#[derive(Debug, Clone)]
pub struct Peer {
    pub id: String,
    pub name: String,
    pub secret: String,
    facts: Value,
}

impl Peer {
    /// Registers a peer in `/tmp`, with `more` added to its facts.
    pub fn register(http: &Http, instance: &str, more: Value) -> Self {
        let mut facts = json!({
            "client": {"name": "test", "version": "0"}, "instance": instance, "pid": std::process::id(), "cwd": "/tmp",
        });
        facts.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Self::registered(&http.post("/v1/register", &facts).json(), facts)
    }

    /// Registers the same peer again after a restart of the broker.
    pub fn again(&self, http: &Http) -> Self {
        Self::registered(&http.as_peer(&self.secret).post("/v1/register", &self.facts).json(), self.facts.clone())
    }

    fn registered(answer: &Value, facts: Value) -> Self {
        let text = |field: &str| answer[field].as_str().unwrap().to_owned();
        Self { id: text("id"), name: text("name"), secret: text("secret"), facts }
    }

    /// HTTP as this peer.
    pub fn over(&self, http: &Http) -> Http {
        http.as_peer(&self.secret)
    }

    /// Opens its event stream. The peer is connected when this returns.
    pub fn follow(&self, http: &Http) -> Events {
        Events::open(&self.over(http))
    }
}

/// An open event stream.
pub struct Events {
    reader: BufReader<Box<dyn Wire>>,
}

impl Events {
    /// Opens the stream of the peer that `http` acts as, and reads its `ready`.
    pub fn open(http: &Http) -> Self {
        let mut events = Self::of(http, "/v1/events");
        assert_eq!(events.next().map(|event| event.0).as_deref(), Some("ready"));
        events
    }

    /// Opens the stream that people watch, whose first events are the peers.
    pub fn watch(http: &Http) -> Self {
        Self::of(http, "/v1/watch")
    }

    fn of(http: &Http, path: &str) -> Self {
        let mut wire = http.connect();
        wire.write_all(&http.written("GET", path, &[("Connection", "keep-alive")], "")).unwrap();
        Self { reader: BufReader::new(wire) }
    }

    /// The next event's name and data, or `None` at the end of the stream. Skips all other lines, such as the head and the sizes
    /// of chunks; our events always have exactly one line of data.
    pub fn next(&mut self) -> Option<(String, Value)> {
        let mut name = None;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(event) = line.trim_end().strip_prefix("event: ") {
                name = Some(event.to_owned());
            } else if let (Some(data), Some(name)) = (line.trim_end().strip_prefix("data: "), name.clone()) {
                return Some((name, serde_json::from_str(data).unwrap()));
            }
        }
    }
}
