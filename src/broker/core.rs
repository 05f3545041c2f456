use super::{changes::Changes, identity::hash, limits::Limits, peer::Peer, probe::Probes, roster::Roster};
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
    /// The user at the command line, or a script of theirs: no secret was shown.
    User,
    /// The peer whose secret was shown.
    Peer(PeerId),
}

impl Caller {
    /// Refuses a session.
    pub(super) fn must_be_user(&self, why: &str, help: &str) -> wire::Result<()> {
        match self {
            Self::User => Ok(()),
            Self::Peer(peer) => Err(Error::new(Code::Forbidden, format!("{peer} is {why}")).help(help)),
        }
    }

    /// The peer, if it is one.
    pub(super) fn peer(&self) -> Option<&PeerId> {
        match self {
            Self::User => None,
            Self::Peer(peer) => Some(peer),
        }
    }
}

/// The broker.
#[derive(Debug)]
pub struct Broker {
    pub(super) store: Store,
    roster: Mutex<Roster>,
    pub(super) probes: Probes,
    pub(super) limits: Limits,
    pub(super) started_at: Timestamp,
    pub(super) notices: Mutex<Vec<String>>,
    pub(super) changes: Changes,
    pub(super) stopping: sync::watch::Sender<bool>,
    /// The broker's own socket: addresses for answers lie beside it.
    pub(super) socket: PathBuf,
}

impl Broker {
    /// A broker over `store`, with everything the store knows, that is reached at `socket`.
    pub async fn open(store: Store, limits: Limits, socket: PathBuf) -> wire::Result<Arc<Self>> {
        let known = |view: &db::View<'_>| Ok::<_, db::Error>((db::peers::all(view)?, db::peers::sessions(view)?));
        let (peers, sessions) = store.read(known).await?;
        Ok(Arc::new(Self {
            store,
            roster: Mutex::new(Roster::new(peers, sessions)),
            probes: Probes::default(),
            limits,
            started_at: clock::now(),
            notices: Mutex::default(),
            changes: Changes::default(),
            stopping: sync::watch::Sender::new(false),
            socket,
        }))
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The peer whose secret this is.
    pub fn authenticate(&self, secret: &str) -> wire::Result<PeerId> {
        let hash = hash(secret);
        self.roster().by_secret(&hash).ok_or_else(|| {
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
        // The sender lives as long as the broker: an error cannot come.
        drop(self.stopping.subscribe().wait_for(|stopping| *stopping).await);
    }

    /// Resolves once the database cannot be worked on any more.
    pub async fn failed(&self) -> db::Fault {
        self.store.failed().await
    }

    /// Closes the store after everything accepted is on disk. The last call.
    pub fn close(self: Arc<Self>) {
        match Arc::try_unwrap(self) {
            Ok(broker) => broker.store.close(),
            Err(_) => tracing::warn!("closing with requests still under way; what was accepted is on disk"),
        }
    }

    /// Adds a notice for people to `status`, once, and writes it into the log.
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

/// Runs a function when it is dropped: at the end of a wait, also of one that is given up.
pub(super) struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
