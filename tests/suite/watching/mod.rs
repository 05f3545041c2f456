//! What people watch: the broker's stream, lines in a pipe, and the live view in a real terminal.

mod lines;
mod screen;
mod stopping;
mod stream;

use crate::support::{events::Peer, http::Http};
use serde_json::{Value, json};

fn peer(http: &Http, name: &str) -> Peer {
    Peer::register(http, name, json!({"cwd": format!("/src/{name}")}))
}

fn send(http: &Http, to: &str, text: &str, reply_to: Option<&Value>) -> Value {
    http.post("/v1/send", &json!({"to": to, "text": text, "replyTo": reply_to})).json()["messageId"].clone()
}

fn take(peer: &Http) -> Vec<Value> {
    let taken = peer.post("/v1/take", &json!({"lease": "lease", "route": "check_messages"})).json();
    let messages = taken["messages"].as_array().unwrap().clone();
    let delivered = messages.iter().map(|message| json!({"id": message["id"], "outcome": "delivered", "lease": "lease"}));
    let acknowledged = json!({"route": "check_messages", "messages": delivered.collect::<Vec<_>>()});
    peer.post("/v1/acknowledge", &acknowledged).json();
    messages
}
