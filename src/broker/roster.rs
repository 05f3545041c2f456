//! All peers in memory, and the ways to find one.

use super::{
    limits::Pace,
    machine::{Gateway, Machine},
    peer::Peer,
};
use crate::{
    db::PeerRow,
    wire::{MachineName, MessageId, PeerId, PeerRef, Process, Status, Timestamp},
};
use std::collections::{BTreeSet, HashMap, HashSet};

/// A question that awaits an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Awaited {
    pub question: MessageId,
    /// The session that asked, if a command line inside it waits: that command gets the answer.
    pub inside: Option<PeerId>,
}

/// All peers, and the indexes over them.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// All peers by id, including gone ones.
    pub peers: HashMap<PeerId, Peer>,
    /// The peers by session id. A session that was resumed while it ran elsewhere has several.
    sessions: HashMap<String, Vec<PeerId>>,
    /// The questions that await an answer now.
    pub asked: Vec<Awaited>,
    /// The command line's recent messages, for the limits.
    pub cli_pace: Pace,
    /// The recent messages of each container's sessions together.
    pub container_paces: HashMap<String, Pace>,
    /// The other machines that were heard since the broker started.
    pub machines: HashMap<MachineName, Machine>,
    /// Who fetches the mail for them.
    pub gateway: Gateway,
    /// The peers of each other machine.
    elsewhere: HashMap<MachineName, HashSet<PeerId>>,
    secrets: HashMap<[u8; 32], PeerId>,
    streams: u64,
}

impl Roster {
    pub fn new(rows: Vec<PeerRow>, sessions: Vec<(String, String)>) -> Self {
        let mut roster = Self::default();
        rows.into_iter().for_each(|row| roster.put(row));
        sessions.into_iter().for_each(|(session, peer)| roster.put_session(session, PeerId::lenient(&peer)));
        roster
    }

    /// Records that `session` belongs to `id`. Other peers may have the same session.
    pub fn put_session(&mut self, session: String, id: PeerId) {
        let peers = self.sessions.entry(session).or_default();
        if !peers.contains(&id) {
            peers.push(id);
        }
    }

    pub fn has_session(&self, id: &PeerId) -> bool {
        self.sessions.values().any(|peers| peers.contains(id))
    }

    /// The peers of a session, the first registered one first.
    pub fn of_session(&self, session: &str) -> Vec<&Peer> {
        let mut peers: Vec<&Peer> =
            self.sessions.get(session).into_iter().flatten().filter_map(|id| self.peers.get(id)).collect();
        peers.sort_by_key(|peer| (peer.row.registered_at, &peer.row.id));
        peers
    }

    /// Replaces the peer's row; the state of its connection stays.
    pub fn put(&mut self, row: PeerRow) {
        if let Some(old) = self.peers.get(&row.id).and_then(|peer| peer.row.secret) {
            self.secrets.remove(&old);
        }
        if let Some(secret) = row.secret {
            self.secrets.insert(secret, row.id.clone());
        }
        if let Some(machine) = &row.machine {
            self.elsewhere.entry(machine.clone()).or_default().insert(row.id.clone());
        }
        match self.peers.get_mut(&row.id) {
            Some(peer) => {
                peer.row = row;
                peer.life = Default::default();
            }
            None => drop(self.peers.insert(row.id.clone(), Peer::new(row))),
        }
    }

    pub fn remove(&mut self, id: &PeerId) {
        let removed = self.peers.remove(id).map(|peer| peer.row);
        if let Some(secret) = removed.as_ref().and_then(|row| row.secret) {
            self.secrets.remove(&secret);
        }
        if let Some(machine) = removed.and_then(|row| row.machine)
            && let Some(peers) = self.elsewhere.get_mut(&machine)
        {
            peers.remove(id);
            if peers.is_empty() {
                self.elsewhere.remove(&machine);
            }
        }
        self.sessions.retain(|_, peers| {
            peers.retain(|peer| peer != id);
            !peers.is_empty()
        });
    }

    /// The peers of another machine, gone ones included.
    pub fn on(&self, machine: &MachineName) -> impl Iterator<Item = &Peer> {
        self.elsewhere.get(machine).into_iter().flatten().filter_map(|id| self.peers.get(id))
    }

    pub fn each_on(&mut self, machine: &MachineName, mut change: impl FnMut(&mut Peer)) {
        for id in self.elsewhere.get(machine).into_iter().flatten() {
            self.peers.get_mut(id).map(&mut change);
        }
    }

    /// The other machines that have peers or were heard.
    pub fn other_machines(&self) -> BTreeSet<&MachineName> {
        self.elsewhere.keys().chain(self.machines.keys()).collect()
    }

    pub fn by_secret(&self, hash: &[u8; 32]) -> Option<PeerId> {
        self.secrets.get(hash).cloned()
    }

    /// The peer that an agent process runs now. Earlier it may have run others.
    pub fn by_agent(&self, agent: Process) -> Option<&Peer> {
        let runs = |peer: &&Peer| peer.row.agent == Some(agent) && !peer.row.legacy;
        self.peers.values().filter(runs).max_by_key(|peer| (peer.stream.is_some(), !peer.row.ended, peer.row.last_seen))
    }

    /// A number for a new stream that no other stream has.
    pub fn next_stream(&mut self) -> u64 {
        self.streams += 1;
        self.streams
    }

    /// The name of a peer, or its id if it is unknown.
    pub fn name(&self, id: &PeerId) -> String {
        self.peers.get(id).map_or_else(|| id.to_string(), |peer| peer.row.name.clone())
    }

    /// A peer's name and id, for the log.
    pub fn called(&self, id: &PeerId) -> String {
        self.peers.get(id).map_or_else(|| id.to_string(), |peer| format!("{} ({id})", peer.row.name))
    }

    /// Finds the peer that `reference` names: by id, then by name among live peers, then the newest gone peer of that name. Only if there
    /// is none does a name without a machine mean a peer of another machine.
    pub fn resolve(&self, reference: &PeerRef, now: Timestamp) -> Resolved {
        let text = reference.as_str();
        if let Some((id, _)) = text.parse::<PeerId>().ok().and_then(|id| self.peers.get_key_value(&id)) {
            return Resolved::One(id.clone());
        }
        match Resolved::among(self.named(text), now) {
            Resolved::None => Resolved::among(self.named_elsewhere(text), now),
            found => found,
        }
    }

    /// Every peer with this name, including gone ones.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Peer> {
        self.peers.values().filter(move |peer| peer.row.name.eq_ignore_ascii_case(name))
    }

    /// Every peer of another machine that has this name there.
    fn named_elsewhere(&self, name: &str) -> impl Iterator<Item = &Peer> {
        let has_name =
            move |peer: &&Peer| peer.row.name.split_once('@').is_some_and(|(there, _)| there.eq_ignore_ascii_case(name));
        self.peers.values().filter(|peer| peer.row.machine.is_some()).filter(has_name)
    }
}

impl Resolved {
    /// The only living one of `peers`, or else the newest gone one.
    fn among<'a>(peers: impl Iterator<Item = &'a Peer>, now: Timestamp) -> Self {
        let (living, gone): (Vec<&Peer>, Vec<&Peer>) = peers.partition(|peer| peer.status(now) != Status::Gone);
        let newest = gone.iter().max_by_key(|peer| (peer.row.last_seen, &peer.row.id));
        match (living.as_slice(), newest) {
            ([one], _) => Resolved::One(one.row.id.clone()),
            ([], None) => Resolved::None,
            ([], Some(one)) if gone.len() == 1 => Resolved::One(one.row.id.clone()),
            ([], Some(newest)) => Resolved::Newest(newest.row.id.clone(), gone.len()),
            (many, _) => Resolved::Many(many.iter().map(|peer| peer.row.id.to_string()).collect()),
        }
    }
}

/// The peers that a reference names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    One(PeerId),
    /// The newest of several gone peers, and how many there are.
    Newest(PeerId, usize),
    Many(Vec<String>),
    None,
}
