//! `run`: links this machine until the program is stopped.

use super::{
    ends::{Link, Presences},
    home::Home,
    hub::Connection,
    report::Context,
    subject::{self, DIRECTORY},
};
use crate::{
    client::Client,
    platform::{manager, paths},
    wire::{self, Code, Error, text::printable_line},
};
use futures_util::StreamExt;
use sd_notify::NotifyState;
use std::sync::Arc;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// A client of the broker of this machine.
pub(super) fn broker() -> wire::Result<Client> {
    Ok(Client::new(paths::socket()?, "claude-peers-link"))
}

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
        let terminate = |kind| signal(kind).local("listening for signals");
        let (mut term, mut int) = (terminate(SignalKind::terminate())?, terminate(SignalKind::interrupt())?);
        notify(&[NotifyState::Ready]);
        // None of these ends by itself, unless the client of the hub does.
        let has_failed = tokio::select! {
            () = self.send_outgoing() => true,
            () = self.receive_incoming() => true,
            () = self.say_who_is_here() => true,
            () = self.answer_who_is_here() => true,
            () = self.learn_who_is_there() => true,
            () = self.learn_directory() => true,
            () = self.tell_state() => true,
            _ = term.recv() => false,
            _ = int.recv() => false,
        };
        if has_failed {
            return Err(Error::new(Code::Internal, "the connection to the hub has ended for good").help("start the link again"));
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
                Connection::Connecting => format!("connecting to the hub {addresses}"),
                Connection::Connected => format!("linked as {name} over {addresses}"),
                Connection::Lost(cause) => format!("not connected to the hub {addresses}: {cause}"),
            };
            let said = printable_line(&said);
            tracing::info!("{said}");
            notify(&[NotifyState::Status(&said)]);
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Fetches the directory with each connection, and takes each that is handed out.
    async fn learn_directory(&self) {
        let mut state = self.hub.state.clone();
        let mut changes = self.subscribe(DIRECTORY.to_owned()).await;
        loop {
            let is_connected = state.borrow_and_update().is_connected();
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
}

/// Tells the service manager, if there is one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = manager::tell(states, true) {
        tracing::warn!("telling the service manager: {}", printable_line(&error.to_string()));
    }
}
