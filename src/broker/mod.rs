//! The rules: who is a peer, what becomes of a message, who may do what. No HTTP, no D-Bus: the edges call one method a verb.
//!
//! Promises: a method that changes something answers after the commit; what is told to a recipient comes from the store,
//! by cursor, so that a wake-up lost or doubled changes nothing; liveness is derived when asked for (is the stream open,
//! does the process live), never remembered.
//!
//! Locks: one mutex over the peers in memory (`roster::Roster`), held for microseconds and never across an await or a
//! call to the store. Jobs of the store take it inside the writing thread, never the other way round.

mod ask;
mod deliver;
mod door;
mod everyone;
mod history;
mod hold;
mod hook;
mod legacy;
mod limits;
mod list;
mod names;
mod register;
mod roster;
mod send;
mod stream;
mod summary;
mod sweep;
mod watch;

pub use legacy::LegacyRegister;
pub use limits::Limits;
pub use stream::{Stream, StreamItem};
pub use watch::{MessageChange, News, Watch};

use crate::mailbox;
use crate::{
    db::{self, Store},
    platform::clock,
    wire::{self, Code, Error, PeerId, Timestamp},
};
use roster::Roster;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The user at the command line, or a script of theirs: no secret was shown.
    User,
    /// The peer whose secret was shown.
    Peer(PeerId),
}

/// The broker.
#[derive(Debug)]
pub struct Broker {
    store: Store,
    state: Arc<Mutex<Roster>>,
    limits: Limits,
    started_at: Timestamp,
    notices: Mutex<Vec<String>>,
    changes: watch::Changes,
    stopping: sync::watch::Sender<bool>,
    /// The broker's own socket: addresses for answers lie beside it.
    socket: PathBuf,
}

impl Broker {
    /// A broker over `store`, with everything the store knows, that is reached at `socket`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn open(store: Store, limits: Limits, socket: PathBuf) -> wire::Result<Arc<Self>> {
        store.write(|c| Ok(mailbox::leases::end_hooks(c)?)).await?;
        let (peers, sessions, waiting) =
            store.read(|c| Ok((db::peers::all(c)?, db::peers::sessions(c)?, mailbox::messages::waiting(c)?))).await?;
        let state = Arc::new(Mutex::new(Roster::new(peers, sessions, waiting)));
        Ok(Arc::new(Self {
            store,
            state,
            limits,
            started_at: clock::now(),
            notices: Mutex::default(),
            changes: watch::Changes::new(),
            stopping: sync::watch::Sender::new(false),
            socket,
        }))
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The peer whose secret this is.
    ///
    /// # Errors
    /// [`Code::Unauthorized`] if it is nobody's.
    pub fn authenticate(&self, secret: &str) -> wire::Result<PeerId> {
        let hash = register::hash(secret);
        self.state().by_secret(&hash).ok_or_else(|| {
            Error::new(Code::Unauthorized, "the secret belongs to no peer of this broker").help("register to get a new one")
        })
    }

    /// Proves that the broker works: a job goes through the writer and back. Costs no disk access.
    ///
    /// # Errors
    /// If the writer does not answer.
    pub async fn check(&self) -> wire::Result<()> {
        Ok(self.store.write(|_| Ok(())).await?)
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

    /// Closes the store after everything accepted is on disk. The last call.
    pub fn close(self: Arc<Self>) {
        match Arc::try_unwrap(self) {
            Ok(broker) => broker.store.close(),
            Err(_) => tracing::warn!("closing with requests still under way; what was accepted is on disk"),
        }
    }

    /// Adds a notice for people to `status`, and says it in the log. What is said again stands there once.
    pub fn notice(&self, text: String) {
        tracing::warn!("{text}");
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if !notices.contains(&text) {
            notices.push(text);
        }
    }

    fn state(&self) -> MutexGuard<'_, Roster> {
        roster::lock(&self.state)
    }

    fn unknown_peer(&self, id: &PeerId) -> wire::Error {
        Error::new(Code::PeerNotFound, format!("Peer {id} not found")).help("list the peers to see who is there")
    }
}

/// What a request that waits is answered when the broker stops.
fn stopping() -> Error {
    Error::new(Code::Stopping, "the broker is stopping").help("try again in a moment")
}
