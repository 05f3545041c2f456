//! The sessions: the route by which messages reach each of them, and why.

use super::{
    finding::{Finding, ok, skipped, warning},
    scene::{Door, Scene},
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
    let waiting = if peer.waiting > 0 { format!(", {} messages waiting", peer.waiting) } else { String::new() };
    let what = format!("{} ({}) by {}{waiting}", printable_line(&peer.name), peer.id, peer.delivery_reason);
    if peer.status == Status::Reconnecting {
        let help = format!("wait until it reconnects, or restart its MCP server in that session: `/mcp` (in {})", peer.cwd);
        return warning(format!("{what}; it is not connected"), help);
    }
    if peer.delivery != Route::Pull {
        return ok(what);
    }
    warning(
        format!("{what}; it sees messages only when it calls one of its tools"),
        "change what the reason names and restart the session (`claude update` brings the inbox: 2.1.224 or newer), or ask it to \
         check_messages",
    )
}
