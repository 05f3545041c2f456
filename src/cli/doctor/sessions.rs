//! The sessions: by which route messages reach each of them, and why.

use super::{
    Finding,
    scene::{Door, Scene},
};
use crate::wire::{Peer, Route, Status, text::printable_line};

const SESSION: &str = "session";

/// A finding for every session.
pub fn check(scene: &Scene) -> Vec<Finding> {
    match &scene.door {
        Door::Broker(_, peers) if peers.is_empty() => vec![Finding::ok(SESSION, "none is connected")],
        Door::Broker(_, peers) => peers.iter().map(session).collect(),
        _ => vec![Finding::skipped(SESSION, "no broker to ask")],
    }
}

fn session(peer: &Peer) -> Finding {
    let name = printable_line(&peer.name);
    let waiting = if peer.waiting > 0 { format!(", {} messages waiting", peer.waiting) } else { String::new() };
    let what = format!("{name} ({}) by {}{waiting}", peer.id, peer.delivery_reason);
    match (peer.status, peer.delivery) {
        (Status::Reconnecting, _) => Finding::warning(
            SESSION,
            format!("{what}; its connection is away"),
            format!("it comes back by itself; if it does not, start its server again in that session: `/mcp` (in {})", peer.cwd),
        ),
        (_, Route::Pull) => Finding::warning(
            SESSION,
            format!("{what}; it sees messages only when it calls one of its tools"),
            "start it again with our hooks in place (`claude-peers setup`), or ask it to check_messages",
        ),
        _ => Finding::ok(SESSION, what),
    }
}
