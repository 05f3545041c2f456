//! This user's systemd, through `systemctl --user`.

use crate::platform::{
    call::{Call, CallFailed},
    paths,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// systemd may have to start a broker, or wait for one that drains.
const PATIENCE: Duration = Duration::from_secs(30);
pub const SERVICE: &str = "claude-peers.service";
pub const SOCKET: &str = "claude-peers.socket";
pub const TCP_SOCKET: &str = "claude-peers-tcp.socket";
/// The unit that registers the MCP server of a package with Claude Code.
pub const SETUP_SERVICE: &str = "claude-peers-setup.service";
pub const SOCKETS: [&str; 2] = [SOCKET, TCP_SOCKET];
/// The properties that [`Unit::get`] can return.
const PROPERTIES: &str = "--property=Id,LoadState,LoadError,ActiveState,SubState,UnitFileState,FragmentPath,Listen,NeedDaemonReload,\
                          Result,ConditionResult,NRestarts,MainPID,ExecStart,ExecMainStatus,Environment";

#[derive(Debug, Clone)]
pub struct Systemd {
    pub version: String,
    /// The folders of units, the first one wins.
    pub unit_path: Vec<PathBuf>,
    /// `%t` in units.
    pub runtime: PathBuf,
}

#[derive(Debug, Clone)]
pub struct Unit {
    pub name: String,
    properties: HashMap<String, String>,
}

impl Unit {
    /// Reads a block of `systemctl show`.
    fn read(block: &str) -> Self {
        // The first of several lines of a property counts.
        let lines = block.lines().rev().filter_map(|line| line.split_once('='));
        let properties: HashMap<_, _> = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { name: properties.get("Id").cloned().unwrap_or_default(), properties }
    }

    /// The value of a property, empty if unset.
    pub fn get(&self, property: &str) -> &str {
        self.properties.get(property).map_or("", String::as_str)
    }

    pub fn is_loaded(&self) -> bool {
        self.get("LoadState") == "loaded"
    }

    pub fn is_masked(&self) -> bool {
        self.get("LoadState") == "masked"
    }

    pub fn is_active(&self) -> bool {
        self.get("ActiveState") == "active"
    }

    pub fn is_failed(&self) -> bool {
        self.get("ActiveState") == "failed"
    }

    /// Whether a condition in the unit kept it from starting.
    pub fn is_ruled_out(&self) -> bool {
        self.get("ConditionResult") == "no" && self.get("ActiveState") == "inactive"
    }

    pub fn is_enabled(&self) -> bool {
        self.get("UnitFileState") == "enabled"
    }

    pub fn pid(&self) -> Option<u32> {
        self.get("MainPID").parse().ok().filter(|pid| *pid != 0)
    }

    pub fn file(&self) -> Option<&Path> {
        Some(self.get("FragmentPath")).filter(|file| !file.is_empty()).map(Path::new)
    }

    /// A socket's address, out of `127.0.0.1:7899 (Stream)`.
    pub fn listen(&self) -> Option<&str> {
        Some(self.get("Listen").rsplit_once(' ')?.0)
    }

    pub fn port(&self) -> Option<u16> {
        self.listen()?.rsplit(':').next()?.parse().ok()
    }
}

impl Systemd {
    /// Finds systemd, or explains why it cannot be used and how to reach it.
    pub(super) async fn find() -> Result<Self, (String, Option<&'static str>)> {
        let runtime = paths::runtime_dir().filter(|runtime| runtime.join("systemd/private").exists()).ok_or_else(|| {
            if !Path::new("/run/systemd/system").is_dir() {
                return ("systemd does not run this machine (a container, or WSL without it)".to_owned(), None);
            }
            let help = "log in as this user, not through `su` or `sudo`; or keep a manager running: `loginctl enable-linger`";
            ("systemd runs this machine, but this user's manager cannot be reached".to_owned(), Some(help))
        })?;
        let mut systemd = Self { version: String::new(), unit_path: Vec::new(), runtime };
        let silent = |error| (format!("this user's systemd does not answer: {error}"), Some("log out and in again"));
        let shown = systemd.call(["show", "--property=Version,UnitPath"]).run().await.map_err(silent)?;
        let shown = Unit::read(&shown);
        shown.get("Version").clone_into(&mut systemd.version);
        systemd.unit_path = shown.get("UnitPath").split_whitespace().map(PathBuf::from).collect();
        Ok(systemd)
    }

    pub fn call<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Call {
        let words = std::iter::once("--user").chain(words);
        // sudo and cron drop the login's environment.
        Call::new("systemctl", "systemctl", words, PATIENCE).env("XDG_RUNTIME_DIR", &self.runtime)
    }

    /// The broker's Unix socket, as its unit names it.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("claude-peers/broker.sock")
    }

    pub fn restart(&self) -> Call {
        self.on("try-restart", [SERVICE])
    }

    pub fn reload(&self) -> Call {
        self.call(["daemon-reload"])
    }

    /// A call with a verb such as `start` or `mask`.
    pub fn on<'a>(&self, verb: &'a str, units: impl IntoIterator<Item = &'a str>) -> Call {
        self.call(std::iter::once(verb).chain(units))
    }

    /// The same for those of our units that need it; none if there are none.
    pub fn on_those<const N: usize>(&self, verb: &str, units: [&Unit; N], wanted: fn(&Unit) -> bool) -> Option<Call> {
        let names: Vec<_> = units.into_iter().filter(|unit| wanted(unit)).map(|unit| unit.name.as_str()).collect();
        (!names.is_empty()).then(|| self.on(verb, names))
    }

    /// A unit, as systemd knows it.
    pub async fn unit(&self, name: &str) -> Result<Unit, CallFailed> {
        Ok(Unit::read(&self.call(["show", PROPERTIES, name]).run().await?))
    }

    pub async fn our_units(&self) -> Result<Units, CallFailed> {
        let names = [SERVICE, SOCKET, TCP_SOCKET, SETUP_SERVICE];
        let shown = self.call(["show", PROPERTIES].into_iter().chain(names)).run().await?;
        let units: Vec<_> = shown.split("\n\n").map(Unit::read).collect();
        let unit = |name: &str| units.iter().find(|unit| unit.name == name).cloned();
        let unknown = |name: &str| Unit { name: name.to_owned(), properties: HashMap::new() };
        let [service, socket, tcp, login] = names.map(|name| unit(name).unwrap_or_else(|| unknown(name)));
        Ok(Units { systemd: self.clone(), service, socket, tcp, login })
    }
}

pub struct Units {
    pub systemd: Systemd,
    pub service: Unit,
    pub socket: Unit,
    pub tcp: Unit,
    /// Registers a package's MCP server at login.
    pub login: Unit,
}

impl Units {
    pub fn all(&self) -> [&Unit; 3] {
        [&self.service, &self.socket, &self.tcp]
    }

    pub fn sockets(&self) -> [&Unit; 2] {
        [&self.socket, &self.tcp]
    }

    pub fn installed(&self) -> bool {
        self.all().iter().any(|unit| !["not-found", ""].contains(&unit.get("LoadState")))
    }

    /// The broker's program, out of `{ path=/usr/bin/claude-peersd ; argv[]=… }`.
    pub fn program(&self) -> Option<PathBuf> {
        let (_, path) = self.service.get("ExecStart").split_once("path=")?;
        Some(PathBuf::from(path.split(" ;").next()?))
    }
}
