//! Peers of containers. The socket through which they connect, which was mounted into their container, is the only proof of where they
//! are: process ids, user ids and paths of a container mean nothing outside it, and the broker ignores them.

use super::{core::Broker, identity::session_key, peer::Peer, roster::Roster};
use crate::{
    platform::clock,
    wire::{self, Code, Error, PeerId, Register, Status},
};

/// How many sessions of one container may be connected or reconnecting at once.
const MOST_PEERS: usize = 64;
/// How many sessions of one container are remembered at most, gone ones included.
const MOST_KNOWN: usize = 1_000;

impl Broker {
    /// How many sessions of a container are connected or reconnecting.
    pub fn peers_in(&self, container: &str) -> u32 {
        let (roster, now) = (self.roster(), clock::now());
        u32::try_from(of(&roster, container).filter(|peer| peer.status(now) != Status::Gone).count()).unwrap_or(u32::MAX)
    }
}

/// The peers of a container, gone ones included.
fn of<'a>(roster: &'a Roster, container: &'a str) -> impl Iterator<Item = &'a Peer> {
    roster.peers.values().filter(move |peer| peer.row.container.as_deref() == Some(container))
}

/// Refuses a session if the container has too many others that are connected, or, if it is new and has no `id`, too many that are
/// remembered: without this limit a container could fill the broker's memory.
pub(super) fn check_room(roster: &Roster, container: &str, id: Option<&PeerId>) -> wire::Result<()> {
    if id.is_none() && of(roster, container).count() >= MOST_KNOWN {
        let what = format!("{MOST_KNOWN} sessions of the container {container} are remembered, and more are refused");
        return Err(
            Error::new(Code::Busy, what).help("use another container name, or wait until the broker forgets old sessions")
        );
    }
    let now = clock::now();
    let is_there = |peer: &&Peer| peer.status(now) != Status::Gone && Some(&peer.row.id) != id;
    if of(roster, container).filter(is_there).count() >= MOST_PEERS {
        let what = format!("the container {container} has {MOST_PEERS} sessions, and more are refused");
        return Err(Error::new(Code::Busy, what).help("end some of them"));
    }
    Ok(())
}

/// The registration of a session in a container, without the facts that only the kernel could prove. Its session id is stored under the
/// container's name.
pub(super) fn within(container: &str, request: Register) -> Register {
    let session_id = request.session_id.map(|session| session_key(Some(container), session));
    Register { session_id, host: None, tty: None, status_file: None, ..request }
}
