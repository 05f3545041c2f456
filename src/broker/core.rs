use super::{changes::Changes, identity::hash, limits::Limits, metrics::Metrics, peer::Peer, probe::Probes, roster::Roster};
use crate::{
    db::{self, Store},
    platform::clock,
    wire::{self, Code, Error, PeerId, Timestamp},
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync;

/// The sender of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The user at the command line, or their script: the request has no secret.
    User,
    /// The peer whose secret the request has.
    Peer(PeerId),
}

impl Caller {
    /// Refuses a session.
    pub fn must_be_user(&self, why: &str, help: &str) -> wire::Result<()> {
        match self {
            Self::User => Ok(()),
            Self::Peer(peer) => Err(Error::new(Code::Forbidden, format!("{peer} is {why}")).help(help)),
        }
    }

    /// The peer, if it is one.
    pub fn peer(&self) -> Option<&PeerId> {
        match self {
            Self::User => None,
            Self::Peer(peer) => Some(peer),
        }
    }
}

#[derive(Debug)]
pub struct Broker {
    pub(super) store: Store,
    roster: Mutex<Roster>,
    pub(super) probes: Probes,
    pub(super) limits: Limits,
    pub(super) started_at: Timestamp,
    pub(super) notices: Mutex<Vec<String>>,
    pub(super) changes: Changes,
    pub(super) metrics: Metrics,
    pub(super) stopping: sync::watch::Sender<bool>,
    /// The broker's own socket. Addresses for answers are in the same folder.
    pub(super) socket: PathBuf,
}

impl Broker {
    /// A broker at `socket`, with all peers and sessions of `store`.
    pub async fn open(store: Store, limits: Limits, socket: PathBuf) -> wire::Result<Arc<Self>> {
        let known = |view: &db::View<'_>| Ok::<_, db::Error>((db::peers::all(view)?, db::peers::sessions(view)?));
        let (peers, sessions) = store.read(known).await?;
        let metrics = Metrics::of(&store);
        Ok(Arc::new(Self {
            store,
            roster: Mutex::new(Roster::new(peers, sessions)),
            probes: Probes::default(),
            limits,
            started_at: clock::now(),
            notices: Mutex::default(),
            changes: Changes::default(),
            metrics,
            stopping: sync::watch::Sender::new(false),
            socket,
        }))
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The peer of `container`, or of none, with this secret.
    pub fn authenticate(&self, secret: &str, container: Option<&str>) -> wire::Result<PeerId> {
        let hash = hash(secret);
        let roster = self.roster();
        let is_from_there = |id: &PeerId| roster.peers.get(id).is_some_and(|peer| peer.row.container.as_deref() == container);
        roster.by_secret(&hash).filter(is_from_there).ok_or_else(|| {
            Error::new(Code::Unauthorized, "the secret belongs to no peer of this broker").help("register to get a new one")
        })
    }

    /// Checks that the broker works: a job goes through the writer and back, without disk access.
    pub async fn check(&self) -> wire::Result<()> {
        Ok(self.store.write(|_| Ok::<_, db::Error>(())).await?)
    }

    /// Ends every stream and every wait, so that connections can close. New requests are still answered.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Resolves once [`Broker::stop`] was called.
    pub async fn stopped(&self) {
        // This cannot fail: the sender lives as long as the broker.
        drop(self.stopping.subscribe().wait_for(|stopping| *stopping).await);
    }

    /// Resolves once the database can no longer be used.
    pub async fn failed(&self) -> db::Fault {
        self.store.failed().await
    }

    /// Closes the store after everything accepted is on disk. Must be the last call.
    pub fn close(self: Arc<Self>) {
        match Arc::try_unwrap(self) {
            Ok(broker) => broker.store.close(),
            Err(_) => tracing::warn!("closing with requests still under way; what was accepted is on disk"),
        }
    }

    /// Adds a notice for people to `status`, once, and logs it.
    pub fn notice(&self, text: String) {
        tracing::warn!("{text}");
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if !notices.contains(&text) {
            notices.push(text);
        }
    }

    /// Reads or changes a peer that must be known.
    pub(super) fn with_peer<T>(&self, id: &PeerId, change: impl FnOnce(&mut Peer) -> T) -> wire::Result<T> {
        self.roster().peers.get_mut(id).map(change).ok_or_else(|| {
            Error::new(Code::PeerNotFound, format!("Peer {id} not found")).help("list the peers to see who is there")
        })
    }

    /// The peers in memory. A panic elsewhere cannot leave them half-changed: every change is a plain assignment.
    pub(super) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a function when dropped: at the end of a wait, even one that is given up.
pub(super) struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
