//! `run`: links this machine until the program is stopped.

use super::{
    directory::{Directory, Member, Signed},
    error::local,
    home::Home,
    hub::{Hub, State},
    presence::Presences,
    retry::PAUSE,
    seal::{Content, Seal},
    subject::{self, DIRECTORY},
};
use crate::{
    client::Client,
    platform::paths,
    wire::{self, Code, Error, MachineName, text::printable_line},
};
use futures_util::StreamExt;
use sd_notify::NotifyState;
use std::sync::Arc;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

/// Both ends of a link, and what all its tasks share.
#[derive(Debug)]
pub(super) struct Link {
    pub broker: Client,
    pub hub: Hub,
    pub seal: Seal,
    pub directory: watch::Sender<Arc<Directory>>,
    pub presences: Presences,
    home: Home,
}

/// A client of the broker of this machine.
pub(super) fn broker() -> wire::Result<Client> {
    let socket = paths::socket().map_err(|error| Error::new(Code::InvalidRequest, error.to_string()))?;
    Ok(Client::new(socket, "claude-peers-link"))
}

/// Links this machine.
pub(super) async fn run() -> wire::Result<()> {
    let home = Home::open()?;
    let hub = home.access()?.keep_connected(subject::inbox(&home.name)).await?;
    let directory = watch::Sender::new(Arc::new(home.directory()?));
    let link = Link { broker: broker()?, hub, seal: home.seal()?, directory, presences: Presences::default(), home };
    link.serve().await
}

impl Link {
    /// Works until SIGTERM or SIGINT.
    async fn serve(&self) -> wire::Result<()> {
        let terminate = |kind| signal(kind).map_err(|error| local("listening for signals", &error));
        let (mut term, mut int) = (terminate(SignalKind::terminate())?, terminate(SignalKind::interrupt())?);
        notify(&[NotifyState::Ready]);
        tokio::select! {
            () = self.send_outgoing() => {}
            () = self.receive_incoming() => {}
            () = self.say_who_is_here() => {}
            () = self.answer_who_is_here() => {}
            () = self.learn_who_is_there() => {}
            () = self.learn_directory() => {}
            () = self.tell_state() => {}
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        notify(&[NotifyState::Stopping]);
        self.leave().await;
        tracing::info!("stopped");
        Ok(())
    }

    /// Logs how the connection is, and tells the service manager.
    async fn tell_state(&self) {
        let mut state = self.hub.state.clone();
        loop {
            let (name, addresses) = (&self.home.name, &self.home.hub);
            let said = match &*state.borrow_and_update() {
                State::Connecting => format!("connecting to the hub {addresses}"),
                State::Connected(_) => format!("linked as {name} over {addresses}"),
                State::Lost(cause) => format!("not connected to the hub {addresses}: {cause}"),
            };
            let said = printable_line(&said);
            tracing::info!("{said}");
            notify(&[NotifyState::Status(&said)]);
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Opens what `from` has sealed to this machine. An old directory may not have its key, so a new one is fetched before it is refused.
    pub async fn open(&self, from: &MachineName, sealed: &[u8]) -> wire::Result<Content> {
        let directory = self.directory.borrow().clone();
        if let Ok(content) = self.seal.open(&directory, from, sealed) {
            return Ok(content);
        }
        self.fetch_directory().await;
        let directory = self.directory.borrow().clone();
        self.seal.open(&directory, from, sealed)
    }

    /// The machine in the directory; a new one is fetched before it is said to be none of them.
    pub async fn member(&self, machine: &MachineName) -> Option<Member> {
        let known = self.directory.borrow().get(machine).cloned();
        if known.is_none() {
            self.fetch_directory().await;
        }
        known.or_else(|| self.directory.borrow().get(machine).cloned())
    }

    /// Fetches the directory; tries until that works.
    pub async fn fetch_directory(&self) {
        loop {
            match self.hub.directory().await {
                Ok(signed) => return signed.into_iter().for_each(|signed| self.accept(&signed)),
                Err(error) => tracing::warn!("{}", error.message),
            }
            sleep(PAUSE).await;
        }
    }

    /// Fetches the directory with each connection, and takes each that is handed out.
    async fn learn_directory(&self) {
        let mut state = self.hub.state.clone();
        let mut changes = loop {
            match self.hub.client.subscribe(DIRECTORY).await {
                Ok(changes) => break changes,
                Err(_) => sleep(PAUSE).await,
            }
        };
        loop {
            let is_connected = matches!(*state.borrow_and_update(), State::Connected(_));
            if is_connected {
                self.fetch_directory().await;
            }
            loop {
                tokio::select! {
                    changed = state.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    message = changes.next() => match message.map(|message| serde_json::from_slice(&message.payload)) {
                        Some(Ok(signed)) => self.accept(&signed),
                        Some(Err(error)) => tracing::warn!("the directory of machines cannot be read: {error}"),
                        None => return,
                    },
                }
            }
        }
    }

    /// Takes a directory that its owner has signed and that is newer.
    fn accept(&self, signed: &Signed) {
        let directory = match signed.open(&self.home.owner) {
            Ok(directory) => directory,
            Err(error) => return tracing::error!("{}", error.message),
        };
        let known = self.directory.borrow().serial;
        if directory.serial < known {
            tracing::warn!("the hub hands out directory {}, but {known} is known", directory.serial);
        }
        if directory.serial <= known {
            return;
        }
        if let Err(error) = self.home.keep_directory(signed) {
            tracing::error!("{}", error.message);
        }
        tracing::info!("directory {} with {} machines", directory.serial, directory.machines.len());
        self.directory.send_replace(Arc::new(directory));
    }
}

/// Tells the service manager, if there is one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("telling the service manager: {error}");
    }
}
