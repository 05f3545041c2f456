//! The broker on the session bus: status, peers and messages for desktops and scripts, signals when they change.
//!
//! Promises: the name is taken before the broker reports itself ready. A missing or silent bus, one of another user, or a name
//! that another program holds costs a bounded wait and a notice, never the broker. A slow bus misses signals and delays nobody.
//! Calls under way when the broker stops get their answer, `Stop` included.

mod desktop;
mod interface;
mod values;

use super::{app::App, desktop::When};
use crate::{
    broker::{News, Watch},
    platform::settings::{self, InvalidSetting},
    wire::{echo, text::printable},
};
use interface::Interface;
use std::{path::PathBuf, sync::Arc, time::Duration};
use zbus::{Connection, connection, object_server::InterfaceRef};

pub const NAME: &str = "dev.claudepeers.Broker1";
/// The one object.
const PATH: &str = "/dev/claudepeers/Broker1";
/// Time limit for the bus: for the whole start, and for each later call.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause after each batch of signals: changes in between are sent together, so that the bus can keep up.
const PACE: Duration = Duration::from_millis(50);
/// How long leaving the bus may take at shutdown: a part of the time for draining.
const LEAVE: Duration = Duration::from_secs(1);

pub struct Bus {
    app: Arc<App>,
    connection: Connection,
    watch: Watch,
    when: When,
}

/// Why the broker is not on the bus.
#[derive(Debug, thiserror::Error)]
enum NotJoined {
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    #[error("it did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("it belongs to {}", .0.map_or("an unknown user".to_owned(), |uid| format!("user {uid}")))]
    NotOurs(Option<u32>),
    #[error("the name is held by another program, perhaps another broker of yours; stop that one and restart this one")]
    Taken,
    #[error("{error}; its address is {address:?}, and {} sets another", settings::DBUS.name)]
    At { address: String, error: Box<Self> },
    #[error(transparent)]
    Bus(#[from] zbus::Error),
    #[error(transparent)]
    System(#[from] std::io::Error),
}

impl NotJoined {
    /// The same for a bus that is not as its address says.
    fn at(self, address: &str) -> Self {
        match self {
            Self::Taken => self,
            other => Self::At { address: echo(address), error: Box::new(other) },
        }
    }
}

impl Bus {
    /// Connects to the session bus, if there is one, and takes the name. A failure becomes a notice.
    pub async fn join(app: &Arc<App>) -> Option<Self> {
        let when = When::from_env();
        let joined = match address() {
            Ok(None) => {
                tracing::info!("there is no session bus: going on without D-Bus");
                return None;
            }
            Ok(Some(address)) => {
                let joined = tokio::time::timeout(PATIENCE, join(app, &address)).await.unwrap_or(Err(NotJoined::Silent));
                joined.map_err(|error| error.at(&address))
            }
            Err(error) => Err(error.into()),
        };
        match joined {
            Ok(connection) => {
                tracing::info!("serving D-Bus as {NAME}");
                let when = when.unwrap_or_else(|error| {
                    app.broker.notice(format!("desktop notifications are off: {error}"));
                    When::Off
                });
                Some(Self { app: app.clone(), connection, watch: app.broker.watch().await, when })
            }
            Err(error) => {
                app.broker.notice(format!("D-Bus is not served as {NAME}: {error}"));
                None
            }
        }
    }

    /// Sends the signals until the broker stops or the bus is gone.
    pub async fn serve(self) {
        let Self { app, connection, watch, when } = self;
        let notifications = app.broker.notifications();
        let closed = connection.clone();
        let orderly = async {
            tell(watch, &connection).await?;
            leave(connection).await
        };
        let late = async {
            app.broker.stopped().await;
            tokio::time::sleep(LEAVE).await;
        };
        let notifying = async {
            desktop::notify(notifications, &closed, when).await;
            std::future::pending::<()>().await;
        };
        let lost = tokio::select! {
            () = notifying => None,
            ended = orderly => ended.err().map(|error| error.to_string()),
            () = closed.closed() => Some("it closed the connection".to_owned()),
            () = late => return tracing::warn!("the session bus does not answer: leaving it as it is"),
        };
        match lost {
            None => closed.graceful_shutdown().await,
            Some(why) => app.broker.notice(format!(
                "the session bus is gone ({why}): D-Bus is not served until the broker is restarted; all else goes on"
            )),
        }
    }
}

/// The address of the session bus. If neither variable is set, the library would guess one. A program started with a clean
/// environment would then use a bus that it was never given.
fn address() -> Result<Option<String>, InvalidSetting> {
    if let Some(address) = settings::text(settings::DBUS.name)? {
        return Ok(Some(address));
    }
    let usual = settings::text("XDG_RUNTIME_DIR")?.map(|dir| PathBuf::from(dir).join("bus"));
    Ok(usual.filter(|socket| socket.exists()).map(|socket| format!("unix:path={}", socket.display())))
}

async fn join(app: &Arc<App>, address: &str) -> Result<Connection, NotJoined> {
    let connection = connection::Builder::address(address).method_timeout(PATIENCE).build().await?;
    // The variable may be left over from another user's session (`sudo -E`, `su`): their programs must not reach this broker.
    let owner = connection.peer_creds().await?.unix_user_id();
    if owner != Some(rustix::process::geteuid().as_raw()) {
        return Err(NotJoined::NotOurs(owner));
    }
    connection.object_server().at(PATH, Interface::new(app.clone())).await?;
    match connection.request_name_with_flags(NAME, zbus::fdo::RequestNameFlags::DO_NOT_QUEUE).await {
        Ok(_) => Ok(connection),
        Err(zbus::Error::NameTaken) => Err(NotJoined::Taken),
        Err(error) => Err(error.into()),
    }
}

/// Reports changes to the bus until the broker stops.
async fn tell(mut watch: Watch, connection: &Connection) -> zbus::Result<()> {
    let interface: InterfaceRef<Interface> = connection.object_server().interface(PATH).await?;
    let mut told = watch.counts();
    while let Some(news) = watch.next().await {
        signal(&interface, &news).await?;
        let counts = watch.counts();
        let properties = interface.get().await;
        if counts.0 != told.0 {
            properties.peer_count_changed(interface.signal_emitter()).await?;
        }
        if counts.1 != told.1 {
            properties.waiting_count_changed(interface.signal_emitter()).await?;
        }
        drop(properties);
        told = counts;
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

async fn signal(interface: &InterfaceRef<Interface>, news: &News) -> zbus::Result<()> {
    let to = interface.signal_emitter();
    for peer in &news.joined {
        Interface::peer_joined(to, peer.id.as_str(), &peer.name, &printable(&peer.cwd)).await?;
    }
    for change in &news.messages {
        let (id, route) = (change.id.to_string(), change.route.map_or("", |route| route.as_str()));
        let (from, recipient) = (change.from.as_str(), change.to.as_str());
        Interface::message_state_changed(to, &id, from, recipient, change.state.as_str(), route).await?;
    }
    for peer in &news.left {
        Interface::peer_left(to, peer.id.as_str(), &peer.name).await?;
    }
    if news.missed > 0 {
        tracing::warn!(
            missed = news.missed,
            "messages change faster than the bus is told; some signals were left out ({} of them)",
            news.missed
        );
    }
    Ok(())
}

/// Releases the name, so that no new call arrives. Calls under way are still answered.
async fn leave(connection: Connection) -> zbus::Result<()> {
    connection.release_name(NAME).await?;
    connection.object_server().remove::<Interface, _>(PATH).await?;
    Ok(())
}
