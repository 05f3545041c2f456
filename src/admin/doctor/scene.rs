//! The facts for the checks, gathered once per round: settings, the broker behind its socket, the service manager, the database.

use super::{database, finding::Finding};
use crate::{
    admin::{
        manager::{Manager, Units},
        place::program,
    },
    agents::{
        claude::{Registrations, has_plugin},
        files::Unreadable,
    },
    client::Client,
    platform::{
        paths,
        settings::{self, InvalidSetting},
    },
    wire::{self, BrokerStatus, DatabaseReport, Peer, Peers},
};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::UnixStream;

/// How long connecting may take. The kernel makes callers wait only while a socket's backlog is full.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

pub struct Scene {
    pub socket: Result<PathBuf, InvalidSetting>,
    pub door: Door,
    pub manager: Manager,
    /// Our units, if systemd runs and reports them.
    pub units: Option<Units>,
    pub registrations: Result<Registrations, Unreadable>,
    /// Whether every session starts our plugin.
    pub plugin: Result<bool, Unreadable>,
    /// The broker program's report on the database that the broker uses or would use.
    pub report: Result<DatabaseReport, Finding>,
}

/// The broker's Unix socket.
pub enum Door {
    /// A broker answers; with its sessions.
    Broker(Box<BrokerStatus>, Vec<Peer>),
    /// It cannot be connected to.
    Closed(io::Error),
    /// A process listens, but its answer is not a broker's.
    Mute(wire::Error),
    /// Its path is not known.
    Unknown,
}

impl Scene {
    /// Gathers the facts. Connecting to the socket may start the broker, as always.
    pub async fn look() -> Self {
        let socket = paths::socket();
        let door = match &socket {
            Ok(socket) => knock(socket).await,
            Err(_) => Door::Unknown,
        };
        // Gathered after connecting, which may have started a broker that fails.
        let manager = Manager::find().await;
        let units = match &manager {
            Manager::Systemd(systemd) => systemd.our_units().await.ok(),
            _ => None,
        };
        let database = match &door {
            Door::Broker(broker, _) => Ok(PathBuf::from(&broker.database.path)),
            _ => paths::database(),
        };
        let services = units.as_ref().and_then(Units::program).filter(|program| program.is_file());
        let daemon = services.or_else(|| program("claude-peersd"));
        let report = database::look(daemon, &database).await;
        Self { socket, door, manager, units, registrations: Registrations::read(), plugin: has_plugin(), report }
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

    /// The TCP port to listen on: the unit's, or this environment's.
    pub fn tcp_port(&self) -> Option<u16> {
        self.units.as_ref().and_then(|units| units.tcp.port()).or_else(|| settings::PORT.parse().ok())
    }
}

async fn knock(socket: &Path) -> Door {
    match tokio::time::timeout(CONNECT_PATIENCE, UnixStream::connect(socket)).await {
        Ok(Ok(stream)) => drop(stream),
        Ok(Err(error)) => return Door::Closed(error),
        Err(_) => return Door::Closed(io::ErrorKind::TimedOut.into()),
    }
    let client = Client::new(socket.to_owned(), "claude-peers");
    let asked = async {
        // First, because this detects a hanging broker sooner than a request does.
        client.hello().await?;
        let status = client.get("/v1/status", None).await?;
        Ok((status, client.get::<Peers>("/v1/peers?scope=machine", None).await?.peers))
    };
    match asked.await {
        Ok((status, peers)) => Door::Broker(Box::new(status), peers),
        Err(error) => Door::Mute(error),
    }
}
