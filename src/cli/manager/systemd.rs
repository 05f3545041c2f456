//! The user's systemd, through `systemctl --user`.

use super::{Absent, PATIENCE};
use crate::{
    cli::call::{Call, CallFailed},
    paths,
};
use std::{collections::HashMap, path::PathBuf};

/// The broker's unit.
pub const SERVICE: &str = "claude-peers.service";
/// The unit of its Unix socket.
pub const SOCKET: &str = "claude-peers.socket";
/// The unit of its TCP socket.
pub const TCP_SOCKET: &str = "claude-peers-tcp.socket";
/// The unit that registers the MCP server of a package with Claude Code.
pub const SETUP_SERVICE: &str = "claude-peers-setup.service";
/// Both socket units.
pub const SOCKETS: [&str; 2] = [SOCKET, TCP_SOCKET];

/// The user's systemd, which has answered.
#[derive(Debug, Clone)]
pub struct Systemd {
    /// Its version, as it says it.
    pub version: String,
    /// The folders that it reads units from, first come first served.
    pub unit_path: Vec<PathBuf>,
    /// The runtime directory that it serves (`%t` in its units).
    pub runtime: PathBuf,
}

/// What systemd knows of a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error` …
    pub load: String,
    /// Why it could not be loaded.
    pub load_error: Option<String>,
    /// `active`, `inactive`, `failed`, `activating` …
    pub active: String,
    /// The same, finer: `listening`, `running`, `dead` …
    pub sub: String,
    /// `enabled`, `disabled`, `static`, `masked`, or empty where there is no such file.
    pub file_state: String,
    /// The file it was read from.
    pub file: Option<PathBuf>,
    /// Where it listens, if it is a socket.
    pub listen: Option<String>,
    /// The drop-ins that change it.
    pub drop_ins: Vec<PathBuf>,
    /// Its files have changed since they were read.
    pub stale: bool,
    /// How it ended last: `success`, `exit-code`, `start-limit-hit` …
    pub result: String,
    /// How often it was started again by itself.
    pub restarts: u32,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// When it was last started, in systemd's words.
    pub since: String,
}

impl Unit {
    /// Whether it is there to be started.
    pub fn is_loaded(&self) -> bool {
        self.load == "loaded"
    }

    /// Whether it is masked.
    pub fn is_masked(&self) -> bool {
        self.load == "masked"
    }

    /// Whether it is at work.
    pub fn is_active(&self) -> bool {
        self.active == "active"
    }

    /// Whether it has failed.
    pub fn is_failed(&self) -> bool {
        self.active == "failed"
    }

    /// Whether it starts by itself, by this user's word or the package's.
    pub fn is_enabled(&self) -> bool {
        self.file_state == "enabled"
    }
}

impl Systemd {
    /// Looks for the socket of this user's manager and asks it for its version.
    pub(super) async fn find() -> Result<Self, Absent> {
        let Some(runtime) = paths::runtime_dir().filter(|runtime| runtime.join("systemd/private").exists()) else {
            return Err(absent());
        };
        let mut systemd = Self { version: String::new(), unit_path: Vec::new(), runtime };
        match systemd.call(["show", "--property=Version,UnitPath"]).run().await {
            Ok(shown) => {
                let value = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                value("Version=").clone_into(&mut systemd.version);
                systemd.unit_path = value("UnitPath=").split_whitespace().map(PathBuf::from).collect();
                Ok(systemd)
            }
            Err(error) => Err(Absent {
                reason: format!("the systemd manager of this user does not answer: {error}"),
                help: Some("log out and in again".to_owned()),
            }),
        }
    }

    /// `systemctl --user` with these words.
    pub fn call<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Call {
        let words = std::iter::once("--user").chain(words);
        // Under sudo, cron and the like the login's environment is missing; its place is known all the same.
        Call::new("systemctl", "systemctl", words, PATIENCE).env("XDG_RUNTIME_DIR", &self.runtime)
    }

    /// Has it read its units again.
    pub fn reload(&self) -> Call {
        self.call(["daemon-reload"])
    }

    /// Has these units start by themselves from now on.
    pub fn enable<'a>(&self, units: impl IntoIterator<Item = &'a str>) -> Call {
        self.on("enable", units)
    }

    /// Has these units not start by themselves any more.
    pub fn disable<'a>(&self, units: impl IntoIterator<Item = &'a str>) -> Call {
        self.on("disable", units)
    }

    /// Forbids these units to be started.
    pub fn mask<'a>(&self, units: impl IntoIterator<Item = &'a str>) -> Call {
        self.on("mask", units)
    }

    /// Allows these units to be started again.
    pub fn unmask<'a>(&self, units: impl IntoIterator<Item = &'a str>) -> Call {
        self.on("unmask", units)
    }

    /// Starts these units.
    pub fn start<'a>(&self, units: impl IntoIterator<Item = &'a str>) -> Call {
        self.on("start", units)
    }

    /// Stops these units.
    pub fn stop<'a>(&self, units: impl IntoIterator<Item = &'a str>) -> Call {
        self.on("stop", units)
    }

    /// Stops these units and starts them again, whether they ran or not.
    pub fn restart<'a>(&self, units: impl IntoIterator<Item = &'a str>) -> Call {
        self.on("restart", units)
    }

    /// Restarts these units where they run.
    pub fn try_restart<'a>(&self, units: impl IntoIterator<Item = &'a str>) -> Call {
        self.on("try-restart", units)
    }

    /// Forgets that these units have failed.
    pub fn reset_failed<'a>(&self, units: impl IntoIterator<Item = &'a str>) -> Call {
        self.on("reset-failed", units)
    }

    fn on<'a>(&self, verb: &'a str, units: impl IntoIterator<Item = &'a str>) -> Call {
        self.call(std::iter::once(verb).chain(units))
    }

    /// What it knows of these units, in their order.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn units<const N: usize>(&self, names: [&str; N]) -> Result<[Unit; N], CallFailed> {
        const PROPERTIES: &str = "--property=Id,LoadState,LoadError,ActiveState,SubState,UnitFileState,FragmentPath,DropInPaths,Listen,\
                                  NeedDaemonReload,Result,NRestarts,MainPID,ActiveEnterTimestamp";
        let shown = self.call(["show", PROPERTIES].into_iter().chain(names)).run().await?;
        let mut units: HashMap<String, Unit> = shown.split("\n\n").map(read).map(|unit| (unit.name.clone(), unit)).collect();
        Ok(names.map(|name| units.remove(name).unwrap_or_else(|| Unit { name: name.to_owned(), ..Unit::default() })))
    }
}

/// Reads what `systemctl show` prints of one unit.
fn read(block: &str) -> Unit {
    let value = |name: &str| {
        let mut lines = block.lines().filter_map(|line| line.split_once('='));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).filter(|value| !value.is_empty())
    };
    let text = |name: &str| value(name).unwrap_or_default();
    Unit {
        name: text("Id"),
        load: text("LoadState"),
        // `org.freedesktop.systemd1.NoSuchUnit "Unit x.service not found."`
        load_error: value("LoadError")
            .map(|error| error.split_once(' ').map_or(error.clone(), |(_, text)| text.trim_matches('"').to_owned())),
        active: text("ActiveState"),
        sub: text("SubState"),
        file_state: text("UnitFileState"),
        file: value("FragmentPath").map(PathBuf::from),
        // `127.0.0.1:7899 (Stream)`
        listen: value("Listen").and_then(|listen| Some(listen.rsplit_once(' ')?.0.to_owned())),
        drop_ins: text("DropInPaths").split_whitespace().map(PathBuf::from).collect(),
        stale: text("NeedDaemonReload") == "yes",
        result: text("Result"),
        restarts: text("NRestarts").parse().unwrap_or(0),
        pid: text("MainPID").parse().ok().filter(|pid| *pid != 0),
        since: text("ActiveEnterTimestamp"),
    }
}

/// Why there is no manager to ask: systemd does not run this machine, or it runs none for this user.
fn absent() -> Absent {
    if !std::path::Path::new("/run/systemd/system").is_dir() {
        return Absent { reason: "systemd does not run this machine (a container, or WSL without it)".to_owned(), help: None };
    }
    Absent {
        reason: "systemd runs this machine, but no manager of this user can be reached".to_owned(),
        help: Some(
            "log in as this user, not through `su` or `sudo`; or keep a manager running: `loginctl enable-linger`".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemctl_shows_is_read() {
        let shown = "\
MainPID=0
Result=start-limit-hit
NRestarts=30
Id=claude-peers.service
LoadState=loaded
ActiveState=failed
SubState=failed
FragmentPath=/usr/lib/systemd/user/claude-peers.service
DropInPaths=/home/u/.config/systemd/user/claude-peers.service.d/port.conf /home/u/.config/systemd/user/claude-peers.service.d/x.conf
UnitFileState=disabled
NeedDaemonReload=no
";
        let unit = read(shown);
        assert_eq!((unit.name.as_str(), unit.restarts, unit.pid, unit.stale), (SERVICE, 30, None, false));
        assert!(unit.is_failed() && unit.is_loaded() && !unit.is_enabled() && !unit.is_masked() && !unit.is_active());
        assert_eq!((unit.result.as_str(), unit.drop_ins.len()), ("start-limit-hit", 2));
        assert_eq!(unit.file, Some(PathBuf::from("/usr/lib/systemd/user/claude-peers.service")));
    }

    #[test]
    fn a_unit_that_is_not_there_says_why() {
        let unit = read(
            "Id=x.service\nLoadState=not-found\nLoadError=org.freedesktop.systemd1.NoSuchUnit \"Unit x.service not found.\"\n",
        );
        assert_eq!(unit.load_error.as_deref(), Some("Unit x.service not found."));
        assert!(!unit.is_loaded());
    }
}
