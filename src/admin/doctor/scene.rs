//! What the checks look at, gathered once a round: the settings, the broker behind its socket, the service manager, the database.

use super::{
    database::{self, Looked},
    programs,
};
use crate::{
    admin::manager::{Manager, Units},
    agents::claude::{Registrations, Unreadable, has_plugin},
    client::Client,
    platform::{paths, settings::InvalidSetting},
    wire::{self, BrokerStatus, Peer, Peers},
};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::UnixStream;

/// How long the kernel may take to connect to a socket: longer only where its backlog is full.
const KNOCK_PATIENCE: Duration = Duration::from_secs(5);

pub struct Scene {
    pub socket: Result<PathBuf, InvalidSetting>,
    /// By this environment, as the database is.
    pub port: Result<u16, InvalidSetting>,
    pub database: Result<PathBuf, InvalidSetting>,
    pub door: Door,
    pub manager: Manager,
    /// Our units, where the manager is systemd and tells.
    pub units: Option<Units>,
    pub registrations: Result<Registrations, Unreadable>,
    /// Whether every session starts our plugin.
    pub plugin: Result<bool, Unreadable>,
    /// What `claude-peersd` says of the database.
    pub looked: Looked,
}

pub enum Door {
    /// A broker, with the sessions it knows.
    Broker(Box<BrokerStatus>, Vec<Peer>),
    /// It cannot be connected to.
    Closed(io::Error),
    /// Somebody is there, but the conversation fails.
    Mute(wire::Error),
    /// There is no telling: its place is not known.
    Unknown,
}

impl Scene {
    /// Looks. Connecting to the socket may start the broker, as it does for everybody else.
    pub async fn look() -> Self {
        let socket = paths::socket();
        let door = match &socket {
            Ok(socket) => knock(socket).await,
            Err(_) => Door::Unknown,
        };
        // After the knock, which may have started a broker that does not live.
        let manager = Manager::find().await;
        let units = match &manager {
            Manager::Systemd(systemd) => systemd.our_units().await.ok(),
            _ => None,
        };
        let mut scene = Self {
            socket,
            port: paths::port(),
            database: paths::database(),
            door,
            units,
            manager,
            registrations: Registrations::read(),
            plugin: has_plugin(),
            looked: Looked::NoProgram,
        };
        scene.looked = database::look(&scene).await;
        scene
    }

    pub fn broker(&self) -> Option<&BrokerStatus> {
        match &self.door {
            Door::Broker(broker, _) => Some(broker),
            _ => None,
        }
    }

    pub fn installed_units(&self) -> Option<&Units> {
        self.units.as_ref().filter(|units| units.installed())
    }

    /// The TCP port that is to be listened on: the unit's, or by this environment.
    pub fn tcp_port(&self) -> Option<u16> {
        let of_unit = self.units.as_ref().and_then(|units| units.tcp.port());
        of_unit.or_else(|| self.port.as_ref().ok().copied())
    }

    /// The broker's program: the service's, or the one that was installed with this program, or the first on `PATH`.
    pub fn daemon(&self) -> Option<PathBuf> {
        let services = self.units.as_ref().and_then(Units::program).filter(|program| program.is_file());
        services.or_else(|| programs::beside("claude-peersd")).or_else(|| programs::on_path("claude-peersd").into_iter().next())
    }
}

async fn knock(socket: &Path) -> Door {
    match tokio::time::timeout(KNOCK_PATIENCE, UnixStream::connect(socket)).await {
        Ok(Ok(stream)) => drop(stream),
        Ok(Err(error)) => return Door::Closed(error),
        Err(_) => return Door::Closed(io::ErrorKind::TimedOut.into()),
    }
    let client = Client::new(socket.to_owned(), "claude-peers");
    // A broker that hangs is known after the exchange of versions, which waits less long than a request.
    if let Err(error) = client.hello().await {
        return Door::Mute(error);
    }
    let status = client.get("/v1/status", None).await;
    match (status, client.get::<Peers>("/v1/peers?scope=machine", None).await) {
        (Ok(status), Ok(peers)) => Door::Broker(Box::new(status), peers.peers),
        (Err(error), _) | (_, Err(error)) => Door::Mute(error),
    }
}
