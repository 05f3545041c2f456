//! Peers of containers. They came through a socket that was mounted into their container, which is the only proof of where they are:
//! process ids, user ids and paths of a container mean nothing here, and none of them is looked at.

use super::{core::Broker, identity::session_key, roster::Roster};
use crate::{
    db::PeerRow,
    platform::clock,
    wire::{self, Code, Error, Register, Status, Timestamp},
};

/// How many sessions of one container may be there at once.
const MOST_PEERS: usize = 64;

impl Broker {
    /// How many sessions of a container are connected or reconnecting.
    pub fn peers_in(&self, container: &str) -> u32 {
        u32::try_from(count(&self.roster(), container, clock::now())).unwrap_or(u32::MAX)
    }
}

fn count(roster: &Roster, container: &str, now: Timestamp) -> usize {
    let is_there = |row: &PeerRow| row.container.as_deref() == Some(container);
    roster.peers.values().filter(|peer| is_there(&peer.row) && peer.status(now) != Status::Gone).count()
}

/// Refuses a further session of a container that has very many.
pub(super) fn check_room(roster: &Roster, container: &str) -> wire::Result<()> {
    if count(roster, container, clock::now()) < MOST_PEERS {
        return Ok(());
    }
    let what = format!("the container {container} has {MOST_PEERS} sessions, and more are refused");
    Err(Error::new(Code::Busy, what).help("end some of them"))
}

/// What a session in a container says of itself, without the facts that only a look at the machine could prove. Its id is one of that
/// container.
pub(super) fn within(container: &str, request: Register) -> Register {
    let session_id = request.session_id.map(|session| session_key(Some(container), session));
    Register { session_id, host: None, tty: None, status_file: None, ..request }
}
