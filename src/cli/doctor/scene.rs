//! What the checks look at, gathered once a round: the settings, the broker behind its socket, the service manager, the database.

use super::{
    database::{self, Looked},
    programs,
};
use crate::{
    cli::{
        claude::{Registrations, Unreadable, has_plugin},
        manager::{Manager, SERVICE, SOCKET, Systemd, TCP_SOCKET, Unit},
        peers,
    },
    client::Client,
    paths,
    settings::InvalidSetting,
    wire::{self, BrokerStatus, Code, Peer, Scope},
};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::UnixStream;

/// How long the kernel may take to connect to a socket: longer only where its backlog is full.
const KNOCK_PATIENCE: Duration = Duration::from_secs(5);

/// All of it.
#[derive(Debug)]
pub struct Scene {
    /// Where the Unix socket is to be.
    pub socket: Result<PathBuf, InvalidSetting>,
    /// The TCP port by this environment.
    pub port: Result<u16, InvalidSetting>,
    /// The database by this environment.
    pub database: Result<PathBuf, InvalidSetting>,
    /// Who answers at the Unix socket.
    pub door: Door,
    /// The service manager.
    pub manager: Manager,
    /// Our units, where the manager is systemd and tells.
    pub units: Option<Units>,
    /// The MCP servers that Claude Code knows.
    pub registrations: Result<Registrations, Unreadable>,
    /// Whether every session starts our plugin.
    pub plugin: Result<bool, Unreadable>,
    /// What `claude-peersd` says of the database.
    pub looked: Looked,
}

/// Who answers at the Unix socket.
#[derive(Debug)]
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

/// Our units as systemd knows them.
#[derive(Debug)]
pub struct Units {
    /// The systemd that knows them.
    pub systemd: Systemd,
    /// The broker.
    pub service: Unit,
    /// Its Unix socket.
    pub socket: Unit,
    /// Its TCP socket.
    pub tcp: Unit,
    /// The broker's program (`ExecStart=`).
    pub program: Option<PathBuf>,
    /// The broker's environment beside the manager's (`Environment=`).
    pub environment: Vec<(String, String)>,
}

impl Units {
    /// All three.
    pub fn all(&self) -> [&Unit; 3] {
        [&self.service, &self.socket, &self.tcp]
    }

    /// Both sockets.
    pub fn sockets(&self) -> [&Unit; 2] {
        [&self.socket, &self.tcp]
    }

    /// Whether the Unix socket's unit is for this place.
    pub fn listens_at(&self, socket: &Path) -> bool {
        self.socket.listen.as_deref().is_some_and(|listen| Path::new(listen) == socket)
    }

    /// Whether any of them is installed.
    pub fn installed(&self) -> bool {
        self.all().iter().any(|unit| unit.load != "not-found" && !unit.load.is_empty())
    }
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
            Manager::Systemd(systemd) => units(systemd).await,
            Manager::Launchd(_) | Manager::None(_) => None,
        };
        let mut scene = Self {
            socket,
            port: paths::port(),
            database: paths::database(),
            door,
            manager,
            units,
            registrations: Registrations::read(),
            plugin: has_plugin(),
            looked: Looked::NoProgram,
        };
        scene.looked = database::look(&scene).await;
        scene
    }

    /// The broker, if it answers.
    pub fn broker(&self) -> Option<&BrokerStatus> {
        match &self.door {
            Door::Broker(broker, _) => Some(broker),
            _ => None,
        }
    }

    /// The TCP port that is to be listened on: the unit's, or by this environment.
    pub fn tcp_port(&self) -> Option<u16> {
        let of_unit = self.units.as_ref().and_then(|units| units.tcp.listen.as_deref()?.rsplit(':').next()?.parse().ok());
        of_unit.or_else(|| self.port.as_ref().ok().copied())
    }

    /// The broker's program: the service's, or the one that was installed with this program, or the first on `PATH`.
    pub fn daemon(&self) -> Option<PathBuf> {
        let services = self.units.as_ref().and_then(|units| units.program.clone()).filter(|program| program.is_file());
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
    match (status, peers::list(&client, Scope::Machine, None).await) {
        (Ok(status), Ok(peers)) => Door::Broker(Box::new(status), peers.peers),
        (Err(error), _) => Door::Mute(error),
        (_, Err(error)) => Door::Mute(wire::Error::new(Code::Internal, error.to_string())),
    }
}

async fn units(systemd: &Systemd) -> Option<Units> {
    let [service, socket, tcp] = systemd.units([SERVICE, SOCKET, TCP_SOCKET]).await.ok()?;
    let property = async |unit, name: &str| -> Option<String> {
        let shown = systemd.call(["show", unit, &format!("--property={name}"), "--value"]).run().await.ok()?;
        Some(shown.trim().to_owned()).filter(|value| !value.is_empty())
    };
    // `{ path=/usr/bin/claude-peersd ; argv[]=… }`
    let program = property(SERVICE, "ExecStart").await.and_then(|text| {
        let (_, path) = text.split_once("path=")?;
        Some(PathBuf::from(path.split(" ;").next()?))
    });
    let environment = property(SERVICE, "Environment").await.unwrap_or_default();
    let environment = environment.split_whitespace().filter_map(|pair| pair.split_once('='));
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Some(Units { systemd: systemd.clone(), service, socket, tcp, program, environment })
}
