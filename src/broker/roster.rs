//! The peers in memory: what the store holds, plus what lives only as long as a connection.

use super::{door::Door, limits::Pace};
use crate::{
    db::peers::PeerRow,
    mailbox::holds::Rule,
    platform::process,
    wire::{DeliveryChoice, HeldBy, InboundRule, MessageId, PeerId, PeerRef, Process, Route, Sender, Status, Timestamp},
};
use std::{
    cell::Cell,
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// How long a peer without a connection, whose process the kernel cannot show us, stays in the list.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// For how long a look at a living process is good enough.
const LOOK: Duration = Duration::from_millis(500);

/// Locks the state. A panic elsewhere cannot leave it half-changed: every change is a plain assignment.
pub(super) fn lock(state: &Mutex<Roster>) -> MutexGuard<'_, Roster> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A peer's open event stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Tells this stream from an earlier or later one of the same peer.
    pub number: u64,
}

/// A peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// As stored.
    pub row: PeerRow,
    /// How many messages some route still has to hand over.
    pub waiting: u32,
    /// Its open event stream.
    pub link: Option<Link>,
    /// How many `take` calls wait for a message right now; they come before the channel.
    pub takers: u32,
    /// What is known of its client's inbox.
    pub door: Door,
    /// Mail waits that no stream will push: the peer is to be told.
    pub hint: bool,
    /// Messages handed out by `/poll-messages` are not yet known to have arrived.
    pub polled: bool,
    /// Bumped when something may have changed for this peer's stream or takers.
    pub wake: watch::Sender<u64>,
    /// What it sent lately.
    pub pace: Pace,
    /// When its process was last looked at, and whether it lived.
    looked: Cell<Option<(Timestamp, bool)>>,
}

impl Peer {
    /// A peer as the store knows it.
    pub fn new(row: PeerRow) -> Self {
        let (wake, _) = watch::channel(0);
        let polled = row.legacy;
        Self {
            row,
            waiting: 0,
            link: None,
            takers: 0,
            door: Door::default(),
            hint: false,
            polled,
            wake,
            pace: Pace::default(),
            looked: Cell::default(),
        }
    }

    /// Wakes whoever waits for something of this peer.
    pub fn wake(&self) {
        self.wake.send_modify(|count| *count += 1);
    }

    /// Whether it can be reached right now. May look at the process table.
    pub fn status(&self, now: Timestamp) -> Status {
        let row = &self.row;
        if self.link.is_some() {
            return Status::Connected;
        }
        if row.ended {
            return Status::Gone;
        }
        // A session of the reference names a process of its own beside the one that the kernel saw.
        if row.legacy && row.host.is_some_and(|named| named.started != 0 && !process::is_alive(named)) {
            return Status::Gone;
        }
        let recent = row.last_seen.plus(GRACE) > now;
        let alive = row.process.map(|process| (process.started != 0, self.process_lives(process, now)));
        match alive {
            Some((_, false)) => Status::Gone,
            // A process that the kernel shows to be the same one is never evicted, however long it is silent.
            Some((true, true)) if row.legacy => Status::Connected,
            Some((true, true)) => Status::Reconnecting,
            Some((false, true)) | None if recent => {
                if row.legacy {
                    Status::Connected
                } else {
                    Status::Reconnecting
                }
            }
            Some((false, true)) | None => Status::Gone,
        }
    }

    /// Whether its process lives. A burst of messages to a session that is away looks only once.
    fn process_lives(&self, process: Process, now: Timestamp) -> bool {
        match self.looked.get() {
            Some((at, lived)) if !lived || at.plus(LOOK) > now => lived,
            _ => {
                let lives = process::is_alive(process);
                self.looked.set(Some((now, lives)));
                lives
            }
        }
    }

    /// The route by which a message will reach it now, and why: a call that waits goes before all others.
    pub fn delivery(&self) -> (Route, String) {
        match self.takers {
            0 => self.route(),
            _ => (Route::Pull, "pull: a call of its tools waits for messages".to_owned()),
        }
    }

    /// The route that is chosen for it, and why. What that one has in its hands goes there, whoever waits for more.
    pub fn route(&self) -> (Route, String) {
        let row = &self.row;
        if row.legacy {
            return (Route::Poll, "poll: the legacy client fetches every second".to_owned());
        }
        let confirmed = match row.proved.as_ref().filter(|(by, _)| *by == self.agent_key()) {
            Some((_, at)) => format!("confirmed {at}"),
            None => "not confirmed yet".to_owned(),
        };
        let pull = |why: &str| (Route::Pull, format!("pull: {why}"));
        match row.delivery {
            DeliveryChoice::Channel => (Route::Channel, format!("channel: asked for by CLAUDE_PEERS_DELIVERY, {confirmed}")),
            DeliveryChoice::Pull => pull("asked for by CLAUDE_PEERS_DELIVERY"),
            _ if row.inbound == InboundRule::Hold => pull("its settings hold what other sessions send (crossSessionInbound)"),
            _ if row.inbound == InboundRule::Refuse => pull("its settings refuse what other sessions send (crossSessionInbound)"),
            _ if row.inbox.is_some() && !self.door.is_given_up() => {
                let proof = if self.has_hook() { ", its hook confirms what is let in" } else { "" };
                (Route::Inbox, format!("inbox: written into its session at once, {confirmed}{proof}"))
            }
            DeliveryChoice::Auto if row.channel => (Route::Channel, format!("channel: named in the start flags, {confirmed}")),
            _ if row.inbox.is_some() => pull("its inbox let in none of the last messages"),
            DeliveryChoice::Inbox => pull("CLAUDE_PEERS_DELIVERY asks for the inbox, and its client has none"),
            DeliveryChoice::Auto => pull("its client has no inbox, and no channel is named in its start flags"),
        }
    }

    /// Whether the prompt hook of the agent process that runs it now has been seen, and proves every message that is let in.
    pub fn has_hook(&self) -> bool {
        self.row.hook_proves_all && self.row.hooked.as_ref().is_some_and(|by| *by == self.agent_key())
    }

    /// Which of the messages to it are held.
    pub fn rule(&self) -> Rule {
        match self.row.inbound {
            InboundRule::Hold => Rule::All(HeldBy::Hold),
            InboundRule::Refuse => Rule::All(HeldBy::Refuse),
            // Only a client that would itself hold it has somebody to ask.
            InboundRule::Match if !self.row.bypasses && self.row.inbox.is_none() => Rule::Nothing,
            InboundRule::Match => Rule::Unequal { bypasses: self.row.bypasses },
            InboundRule::Accept => Rule::Nothing,
        }
    }

    /// What the proof of an inbox or a channel is tied to: the agent process, which has the one and whose flags decide whether the
    /// other exists; where that is unknown, the process that registered.
    pub fn agent_key(&self) -> String {
        match self.row.host {
            Some(host) => format!("{}:{}", host.pid, host.started),
            None => self.row.instance.clone(),
        }
    }

    /// Whether its inbox or channel has proved itself.
    pub fn has_proved(&self) -> bool {
        let key = self.agent_key();
        self.row.proved.as_ref().is_some_and(|(by, _)| *by == key)
    }

    /// The lease under which its stream hands over messages.
    pub fn stream_lease(&self) -> String {
        stream_lease(&self.row.instance)
    }

    /// The stream's lease, if a message that comes now is to go to the channel at once.
    pub fn pushing(&self) -> Option<String> {
        (self.link.is_some() && self.takers == 0 && self.route().0 == Route::Channel).then(|| self.stream_lease())
    }

    /// How it appears as the sender of a message.
    pub fn as_sender(&self) -> Sender {
        let PeerRow { id, name, cwd, summary, .. } = &self.row;
        Sender { id: id.clone(), name: name.clone(), cwd: cwd.clone(), summary: summary.clone() }
    }
}

/// The lease of the stream of the process `instance` (`s:`), and of its takes (`t:`): the process's name stands in both, so
/// that a process that is gone leaves leases that are known to be dead.
pub(super) fn stream_lease(instance: &str) -> String {
    format!("s:{instance}")
}

/// The lease of one take.
pub(super) fn take_lease(instance: &str, lease: &str) -> String {
    format!("t:{instance}:{lease}")
}

/// A question whose answer somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Awaited {
    pub question: MessageId,
    /// The session that asked it, where a command line inside of it waits: that one gets the answer.
    pub inside: Option<PeerId>,
}

/// All peers.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// By id, those that are gone included.
    pub peers: HashMap<PeerId, Peer>,
    /// Which peer a session id belongs to.
    pub sessions: HashMap<String, PeerId>,
    /// The questions whose answers somebody waits for right now.
    pub asked: Vec<Awaited>,
    /// What the command line sent lately.
    pub cli_pace: Pace,
    secrets: HashMap<[u8; 32], PeerId>,
    links: u64,
}

impl Roster {
    pub fn new(rows: Vec<PeerRow>, sessions: Vec<(String, String)>, waiting: Vec<(String, u32)>) -> Self {
        let mut state = Self::default();
        for row in rows {
            state.put(row);
        }
        for (session, peer) in sessions {
            if let Ok(peer) = peer.parse() {
                state.sessions.insert(session, peer);
            }
        }
        for (peer, count) in waiting {
            if let Some(peer) = peer.parse().ok().and_then(|id: PeerId| state.peers.get_mut(&id)) {
                peer.waiting = count;
            }
        }
        state
    }

    /// Puts a row in place of the peer's earlier one; what lives with its connection stays.
    pub fn put(&mut self, row: PeerRow) {
        if let Some(old) = self.peers.get(&row.id).and_then(|peer| peer.row.secret) {
            self.secrets.remove(&old);
        }
        if let Some(secret) = row.secret {
            self.secrets.insert(secret, row.id.clone());
        }
        match self.peers.get_mut(&row.id) {
            Some(peer) => {
                peer.row = row;
                peer.looked.take();
            }
            None => drop(self.peers.insert(row.id.clone(), Peer::new(row))),
        }
    }

    pub fn remove(&mut self, id: &PeerId) {
        if let Some(secret) = self.peers.remove(id).and_then(|peer| peer.row.secret) {
            self.secrets.remove(&secret);
        }
        self.sessions.retain(|_, peer| peer != id);
    }

    pub fn by_secret(&self, hash: &[u8; 32]) -> Option<PeerId> {
        self.secrets.get(hash).cloned()
    }

    /// The peer that the agent process `host` runs: the one it runs now, if it has run several.
    pub fn by_host(&self, host: Process) -> Option<&Peer> {
        let runs = |peer: &&Peer| peer.row.host == Some(host) && !peer.row.legacy;
        self.peers.values().filter(runs).max_by_key(|peer| (peer.link.is_some(), !peer.row.ended, peer.row.last_seen))
    }

    /// A number no other stream or waiting hook has.
    pub fn next_link(&mut self) -> u64 {
        self.links += 1;
        self.links
    }

    /// Finds the peer that `reference` names: by id, then by name among the living, then the newest among the gone.
    pub fn resolve(&self, reference: &PeerRef, now: Timestamp) -> Resolved {
        let text = reference.as_str();
        if let Some((id, _)) = text.parse::<PeerId>().ok().and_then(|id| self.peers.get_key_value(&id)) {
            return Resolved::One(id.clone());
        }
        let (living, gone): (Vec<&Peer>, Vec<&Peer>) = self.named(text).partition(|peer| peer.status(now) != Status::Gone);
        let newest = gone.iter().max_by_key(|peer| (peer.row.last_seen, &peer.row.id));
        match (living.as_slice(), newest) {
            ([one], _) => Resolved::One(one.row.id.clone()),
            ([], None) => Resolved::None,
            ([], Some(one)) if gone.len() == 1 => Resolved::One(one.row.id.clone()),
            ([], Some(newest)) => Resolved::Newest(newest.row.id.clone(), gone.len()),
            (many, _) => Resolved::Many(many.iter().map(|peer| peer.row.id.to_string()).collect()),
        }
    }

    /// Every peer with this name, those that are gone included.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Peer> {
        self.peers.values().filter(move |peer| peer.row.name.eq_ignore_ascii_case(name))
    }
}

/// What a reference names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    One(PeerId),
    /// The newest of so many, all of them gone.
    Newest(PeerId, usize),
    Many(Vec<String>),
    None,
}
