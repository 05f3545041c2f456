//! The sessions: by which route messages reach each of them, and why.

use super::{
    Finding, ok,
    scene::{Door, Scene},
    skipped, warning,
};
use crate::wire::{Peer, Route, Status, text::printable_line};

pub fn check(scene: &Scene) -> Vec<Finding> {
    match &scene.door {
        Door::Broker(_, peers) if peers.is_empty() => vec![ok("none is connected")],
        Door::Broker(_, peers) => peers.iter().map(session).collect(),
        _ => vec![skipped("no broker to ask")],
    }
}

fn session(peer: &Peer) -> Finding {
    let name = printable_line(&peer.name);
    let waiting = if peer.waiting > 0 { format!(", {} messages waiting", peer.waiting) } else { String::new() };
    let what = format!("{name} ({}) by {}{waiting}", peer.id, peer.delivery_reason);
    match (peer.status, peer.delivery) {
        (Status::Reconnecting, _) => {
            let again = "it comes back by itself; if it does not, start its server again in that session: `/mcp`";
            warning(format!("{what}; its connection is away"), format!("{again} (in {})", peer.cwd))
        }
        (_, Route::Pull) => warning(
            format!("{what}; it sees messages only when it calls one of its tools"),
            "change what the reason names and start it again (`claude update` brings the inbox: 2.1.224 or newer); or ask it to \
             check_messages",
        ),
        _ => ok(what),
    }
}
