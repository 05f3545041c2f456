//! A peer in memory: its row, and the state that lasts only as long as a connection.

use super::{attended::Attended, doorbell::Doorbell, inbox::Inbox, limits::Pace, machine::HEARD};
use crate::{
    db::PeerRow,
    wire::{DeliveryChoice, Door, InboundRule, Process, Route, Sender, Status, Timestamp},
};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use tokio::sync::watch;

/// How long a peer stays in the list without a connection if the kernel cannot identify its process.
const GRACE: Duration = Duration::from_secs(60);
/// The same in a container, where only the stream shows that a session lives: longer than a restart of the broker and the longest
/// pause of a client that reconnects.
const GRACE_IN_CONTAINER: Duration = Duration::from_secs(15);

/// The result of the last look at a peer's processes.
#[derive(Debug, Default)]
pub(super) struct Life {
    pub looked: Option<Timestamp>,
    pub is_over: bool,
}

#[derive(Debug)]
pub(super) struct Peer {
    /// As stored.
    pub row: PeerRow,
    /// The number of its open event stream, which distinguishes it from earlier and later ones.
    pub stream: Option<u64>,
    /// How many `take` calls wait for a message right now; they take precedence over the channel.
    pub takers: u32,
    /// The running takes by lease. A newer take under the same lease outdates the older one.
    pub takes: HashMap<String, Arc<AtomicBool>>,
    /// The state of its client's inbox.
    pub inbox: Inbox,
    /// Messages may wait that no stream pushes. If so, the peer is told.
    pub hint: bool,
    /// Incremented when something may have changed for this peer's stream or takes.
    pub wake: watch::Sender<u64>,
    /// Its recent messages, for the limits.
    pub pace: Pace,
    /// Whether its processes are alive.
    pub life: Life,
    /// Whether its user has left, and who has asked to wake it all the same.
    pub attended: Attended,
    /// The doorbells that ring for it.
    pub doorbell: Doorbell,
    /// The file in which its agent says what it does.
    pub status_file: Option<String>,
    /// When the other machine that it runs on announced it last.
    pub heard: Option<Timestamp>,
}

impl Peer {
    pub fn new(row: PeerRow) -> Self {
        Self {
            row,
            stream: None,
            takers: 0,
            takes: HashMap::new(),
            inbox: Inbox::default(),
            hint: false,
            wake: watch::channel(0).0,
            pace: Pace::default(),
            life: Life::default(),
            attended: Attended::default(),
            doorbell: Doorbell::default(),
            status_file: None,
            heard: None,
        }
    }

    /// Wakes its stream and its takes.
    pub fn wake(&self) {
        self.wake.send_modify(|count| *count += 1);
    }

    /// Ends the peer's stream and takes, because another process serves it now, or none.
    pub fn cut_off(&mut self) {
        (self.stream, self.takers) = (None, 0);
        self.wake();
    }

    /// Whether the peer can be reached now, by the last look at its processes (`Broker::look`).
    pub fn status(&self, now: Timestamp) -> Status {
        let row = &self.row;
        if self.stream.is_some() {
            return Status::Connected;
        }
        if row.machine.is_some() {
            return if self.heard.is_some_and(|at| at.plus(HEARD) > now) { Status::Connected } else { Status::Gone };
        }
        if row.ended || self.life.is_over {
            return Status::Gone;
        }
        // A process that the kernel identifies is never evicted, no matter how long it is silent.
        let is_certain = row.process.is_some_and(|process| process.started != 0);
        let grace = if row.container.is_some() { GRACE_IN_CONTAINER } else { GRACE };
        match row.legacy {
            _ if !is_certain && row.last_seen.plus(grace) <= now => Status::Gone,
            true => Status::Connected,
            false => Status::Reconnecting,
        }
    }

    /// The route by which a message would reach the peer now, and why. A waiting call takes precedence over all other routes.
    pub fn delivery(&self) -> (Route, String) {
        match self.takers {
            0 => self.route(),
            _ => (Route::Pull, "pull: a call of its tools waits for messages".to_owned()),
        }
    }

    /// The peer's chosen route, and why. Messages already leased to this route take it even if a call is waiting for more.
    pub fn route(&self) -> (Route, String) {
        let row = &self.row;
        if let Some(machine) = &row.machine {
            return (Route::Link, format!("link: claude-peers-link takes it to {machine}"));
        }
        if row.legacy {
            return (Route::Poll, "poll: the legacy client fetches every second".to_owned());
        }
        let confirmed = match row.proved.as_ref().filter(|_| row.has_proved()) {
            Some((_, at)) => format!("confirmed {at}"),
            None => "not confirmed yet".to_owned(),
        };
        let pull = |why: &str| (Route::Pull, format!("pull: {why}"));
        match row.delivery {
            _ if self.attended.is_left_alone() => pull("its user has left, and nothing wakes it unless a sender asks for that"),
            DeliveryChoice::Channel => (Route::Channel, format!("channel: asked for by CLAUDE_PEERS_DELIVERY, {confirmed}")),
            DeliveryChoice::Pull => pull("asked for by CLAUDE_PEERS_DELIVERY"),
            _ if row.inbound == InboundRule::Hold => pull("its settings hold what other sessions send (crossSessionInbound)"),
            _ if row.inbound == InboundRule::Refuse => pull("its settings refuse what other sessions send (crossSessionInbound)"),
            _ if row.has_door() && !self.inbox.is_given_up() => {
                let proof = match row.door {
                    Some(Door::Inbox) => ", its transcript confirms what is shown".to_owned(),
                    Some(door) => format!(", its {door} confirms what is shown"),
                    _ if row.confirms_each() => ", its hook confirms what is let in".to_owned(),
                    _ => String::new(),
                };
                (Route::Inbox, format!("inbox: written into its session at once, {confirmed}{proof}"))
            }
            DeliveryChoice::Auto if row.channel => (Route::Channel, format!("channel: named in the start flags, {confirmed}")),
            _ if row.has_door() => pull("its inbox let in none of the last messages"),
            _ if self.doorbell.rings() => pull("a doorbell tells it that mail waits"),
            DeliveryChoice::Inbox => pull("CLAUDE_PEERS_DELIVERY asks for the inbox, and its client has none"),
            DeliveryChoice::Auto => pull("its client has no inbox, and no channel is named in its start flags"),
        }
    }

    /// The process whose stream would push a message that arrives now.
    pub fn pushing(&self) -> Option<String> {
        let pushes = self.stream.is_some() && self.takers == 0 && self.route().0 == Route::Channel;
        pushes.then(|| self.row.instance.clone())
    }

    pub fn as_sender(&self) -> Sender {
        let PeerRow { id, name, cwd, summary, container, .. } = &self.row;
        let (name, cwd, summary, container) = (name.clone(), cwd.clone(), summary.clone(), container.clone());
        Sender { id: id.clone(), name, cwd, summary, container }
    }

    /// The processes whose end makes the peer gone.
    pub fn processes(&self) -> impl Iterator<Item = Process> + use<> {
        // A legacy client names a process in addition to the one that the kernel saw.
        let named = self.row.agent.filter(|named| self.row.legacy && named.started != 0);
        self.row.process.into_iter().chain(named)
    }

    /// Whether only a look at its processes can tell if the peer is present.
    pub fn needs_look(&self, age: Duration, now: Timestamp) -> bool {
        let is_known = self.life.is_over || self.life.looked.is_some_and(|at| at.plus(age) > now);
        self.stream.is_none() && !self.row.ended && !is_known
    }
}
