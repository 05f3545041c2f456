//! The service under systemd: the units' files, which are the package's or copies of our own in the user's folder; their sockets; and
//! a broker that stands in their way.

use super::{
    files::{self, Draft, Found},
    place::Place,
    step::{Ended, Step, run},
};
use crate::{
    admin::{
        manager::{self, SERVICE, SOCKET, SOCKETS, Systemd, TCP_SOCKET, Unit},
        stop,
    },
    client::Client,
    console::exit::Problem,
    platform::paths::DEFAULT_PORT,
    wire::{BrokerStatus, ListenerStatus, VERSION},
};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
};

pub const FILES: &str = "units";
const SOCKET_STEP: &str = "sockets";
const TCP: &str = "tcp_port";
const BROKER: &str = "broker";
const MASK: &str = "mask";
const UNITS: [(&str, &str); 3] = [
    (SOCKET, include_str!("../../../systemd/claude-peers.socket")),
    (TCP_SOCKET, include_str!("../../../systemd/claude-peers-tcp.socket")),
    (SERVICE, include_str!("../../../systemd/claude-peers.service")),
];
/// What has the session bus start the service.
const ACTIVATION: (&str, &str) =
    ("dev.claudepeers.Broker1.service", include_str!("../../../packaging/dbus/dev.claudepeers.Broker1.service"));
const PACKAGED: &str = "/usr/bin/";

pub async fn put(place: &Place, systemd: &Systemd, port: Option<u16>) -> Result<Vec<Step>, Problem> {
    let units = Units::look(place, systemd, port)?;
    let sockets = Sockets::look(systemd).await?;
    let (changed, port) = (units.change(), units.port);
    let mut steps = units.put(systemd);
    steps.extend(sockets.open(place.package.is_some(), changed, port));
    Ok(steps)
}

pub async fn take_back(place: &Place, systemd: &Systemd) -> Result<Vec<Step>, Problem> {
    let sockets = Sockets::look(systemd).await?;
    let mut steps = vec![sockets.close()];
    steps.extend(Units::look_back(place, systemd)?.take_back(systemd));
    if place.package.is_some() {
        steps.push(sockets.forbid());
    }
    Ok(steps)
}

/// The files of this user, as they are to be and as they are.
struct Units {
    write: Vec<Draft>,
    remove: Vec<PathBuf>,
    /// Files in the way that are not ours.
    foreign: Vec<Problem>,
    place: Place,
    folder: PathBuf,
    /// The port changes with the files.
    port: Option<u16>,
}

impl Units {
    /// Looks at what is there, and what `setup` has to change about it. `port`: another than before.
    fn look(place: &Place, systemd: &Systemd, port: Option<u16>) -> Result<Self, Problem> {
        let mut units = Self::none(place, systemd);
        // Old copies of ours would hide a package's units.
        units.sort(units.copies(), place.package.is_none())?;
        if let Some(port) = port {
            let sorted = units.sort(units.drop_ins(port), port != DEFAULT_PORT)?;
            units.port = sorted.then_some(port);
        }
        Ok(units)
    }

    /// Puts each file where it belongs: to be written or, if they are not wanted, removed. Says whether there is any.
    fn sort(&mut self, drafts: impl IntoIterator<Item = Draft>, wanted: bool) -> Result<bool, Problem> {
        let before = self.write.len() + self.remove.len();
        for draft in drafts {
            match (wanted, draft.found()?) {
                (true, Found::Nothing | Found::Ours) => self.write.push(draft),
                (false, Found::Same | Found::Ours) => self.remove.push(draft.path),
                (true, Found::Same) | (false, Found::Nothing) => {}
                (_, found) => self.foreign.push(in_the_way(&draft, found, &self.place)),
            }
        }
        Ok(before != self.write.len() + self.remove.len())
    }

    fn look_back(place: &Place, systemd: &Systemd) -> Result<Self, Problem> {
        let mut units = Self::none(place, systemd);
        for draft in units.copies().into_iter().chain(units.drop_ins(DEFAULT_PORT)) {
            if draft.found()? != Found::Foreign {
                units.sort([draft], false)?;
            }
        }
        Ok(units)
    }

    fn none(place: &Place, systemd: &Systemd) -> Self {
        let usual = place.home.join(".config/systemd/user");
        let set = place.folder("XDG_CONFIG_HOME", ".config").join("systemd/user");
        // The user's systemd may have been started without what this shell has set: only it knows where it reads.
        let folder = if systemd.unit_path.is_empty() || systemd.unit_path.contains(&set) { set } else { usual };
        Self { write: Vec::new(), remove: Vec::new(), foreign: Vec::new(), place: place.clone(), folder, port: None }
    }

    /// Copies of the package's files, for the programs of this place.
    fn copies(&self) -> Vec<Draft> {
        let bin = format!("{}/", self.place.bin.to_string_lossy().trim_end_matches('/'));
        let units = UNITS.map(|(name, text)| Draft::text(self.folder.join(name), &placed(text, &bin)));
        let (name, text) = ACTIVATION;
        let data = self.place.folder("XDG_DATA_HOME", ".local/share").join("dbus-1/services");
        let activation = Draft::text(data.join(name), &placed(text, &bin));
        units.into_iter().chain([activation]).collect()
    }

    fn drop_ins(&self, port: u16) -> [Draft; 2] {
        let file = |unit: &str, text: &str| Draft::text(self.folder.join(format!("{unit}.d/port.conf")), text);
        let listen = "[Socket]\n# Instead of the one that the unit names.\nListenStream=\nListenStream=127.0.0.1";
        let environment = "[Service]\nEnvironment=CLAUDE_PEERS_PORT";
        [file(TCP_SOCKET, &format!("{listen}:{port}\n")), file(SERVICE, &format!("{environment}={port}\n"))]
    }

    fn change(&self) -> bool {
        !self.write.is_empty() || !self.remove.is_empty()
    }

    fn put(self, systemd: &Systemd) -> Vec<Step> {
        let mut steps = self.in_the_way();
        let folder = self.folder.display().to_string();
        if !self.change() {
            if steps.is_empty() {
                steps.push(match &self.place.package {
                    Some(package) => Step::already(FILES, format!("use the units of the package in {}", package.display())),
                    None => Step::already(FILES, format!("write the units into {folder}")),
                });
            }
            return steps;
        }
        let mut what = Vec::new();
        if !self.write.is_empty() {
            what.push(format!("write {} into {folder}", counted(self.write.len())));
        }
        if !self.remove.is_empty() {
            what.push(format!("remove {} of an earlier setup", counted(self.remove.len())));
        }
        let what = what.join(", ") + &self.port.map(|port| format!(", for TCP port {port}")).unwrap_or_default();
        let shadow = self.place.package.is_none() && Path::new("/usr/lib/systemd/user").join(SERVICE).exists();
        let note = shadow.then(|| "they take the place of the package's units in /usr/lib/systemd/user".to_owned());
        steps.push(Step::to_do(FILES, what, self.change_files(systemd.clone())).note(note));
        steps
    }

    fn take_back(self, systemd: &Systemd) -> Vec<Step> {
        let mut steps = self.in_the_way();
        let folder = self.folder.display().to_string();
        steps.push(match self.remove.len() {
            0 => Step::already(FILES, format!("remove units from {folder}")),
            count => Step::to_do(FILES, format!("remove {} from {folder}", counted(count)), self.change_files(systemd.clone())),
        });
        steps
    }

    fn in_the_way(&self) -> Vec<Step> {
        self.foreign.iter().map(|problem| Step::impossible(FILES, problem.clone())).collect()
    }

    async fn change_files(self, systemd: Systemd) -> Result<(), Problem> {
        if self.place.package.is_some() && self.remove.iter().any(|path| path.ends_with(SOCKET)) {
            // The links that enabled our copies; the package has enabled its own for all users.
            systemd.on("disable", SOCKETS).run().await?;
        }
        for draft in &self.write {
            draft.write()?;
        }
        for path in &self.remove {
            files::remove(path, self.place.base(path))?;
        }
        systemd.reload().run().await?;
        Ok(())
    }
}

/// The file `text` with its programs in `bin`.
fn placed(text: &str, bin: &str) -> String {
    let escaped = bin.replace('%', "%%");
    if !bin.contains(char::is_whitespace) {
        return text.replace(PACKAGED, &escaped);
    }
    // A folder with a blank stands in quotes, here and in the session bus's file.
    let line = |line: &str| match line.split_once(PACKAGED) {
        Some((key @ ("ExecStart=" | "Exec="), program)) => format!("{key}\"{escaped}{program}\"\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn counted(files: usize) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

fn in_the_way(draft: &Draft, found: Found, place: &Place) -> Problem {
    let what = format!("{} {}: it is left as it is", draft.path.display(), found.not_ours().unwrap_or_default());
    let instead = if place.package.is_some() { "; it hides the package's own" } else { "" };
    Problem::new(what, format!("keep what you need of it in a drop-in, move it away and run this again{instead}"))
}

/// What systemd knows of our units, before anything is changed.
struct Sockets {
    units: manager::Units,
    /// The broker that answers already, however it was started.
    broker: Option<BrokerStatus>,
}

pub fn socket(systemd: &Systemd) -> PathBuf {
    systemd.runtime.join("claude-peers/broker.sock")
}

impl Sockets {
    /// Asks systemd, and the broker if it runs; starts nothing.
    async fn look(systemd: &Systemd) -> Result<Self, Problem> {
        let units = systemd.our_units().await?;
        // A connection to systemd's socket would start the broker; where systemd has none, it starts nothing.
        let broker = if units.service.is_active() || !units.socket.is_active() {
            Client::new(socket(systemd), "claude-peers").get("/v1/status", None).await.ok()
        } else {
            None
        };
        Ok(Self { units, broker })
    }

    /// The steps that have both sockets listen. `package`: the units are a package's; `changed`: they are about to change;
    /// `port`: the port of the TCP socket is about to become this one.
    fn open(self, package: bool, changed: bool, port: Option<u16>) -> Vec<Step> {
        let mut steps: Vec<_> = self.broker_by_hand().into_iter().collect();
        steps.push(self.enable(package));
        steps.push(self.open_tcp(port));
        steps.extend(self.renew(changed && port.is_none()));
        steps
    }

    /// A broker that nobody supervises would keep its database from the service's.
    fn broker_by_hand(&self) -> Option<Step> {
        let broker = self.broker.as_ref().filter(|_| !self.units.service.is_active() && !self.units.socket.is_active())?;
        let client = Client::new(socket(&self.units.systemd), "claude-peers");
        let what = format!("stop the one that was started by hand (process {})", broker.pid);
        Some(Step::to_do(BROKER, what, async move {
            stop::stop(&client).await?;
            Ok(Ended::Well("the service takes its place".to_owned()))
        }))
    }

    fn four(&self) -> [&Unit; 4] {
        let manager::Units { socket, tcp, service, login, .. } = &self.units;
        [socket, tcp, service, login]
    }

    fn enable(&self, package: bool) -> Step {
        let systemd = &self.units.systemd;
        let masked = names(self.four(), Unit::is_masked);
        // The TCP socket has its own step: where the port is in other hands, it has failed and may stay so.
        let failed = names([&self.units.socket, &self.units.service], Unit::is_failed);
        let mut calls = Vec::new();
        calls.extend(systemd.on_any("unmask", masked));
        calls.extend(systemd.on_any("reset-failed", failed));
        // A package has enabled its units for all users, which shows again once they are not masked any more.
        let enabled = |unit: &Unit| unit.is_enabled() || (package && unit.is_masked());
        if !enabled(&self.units.socket) || !enabled(&self.units.tcp) {
            calls.push(systemd.on("enable", SOCKETS));
        }
        if !self.units.socket.is_active() {
            calls.push(systemd.on("start", [SOCKET]));
        }
        Step::calls(SOCKET_STEP, format!("have {SOCKET} and {TCP_SOCKET} start by themselves"), calls)
    }

    fn open_tcp(&self, port: Option<u16>) -> Step {
        let systemd = &self.units.systemd;
        let wanted = port.or_else(|| self.units.tcp.port()).unwrap_or(DEFAULT_PORT);
        let what = format!("listen on 127.0.0.1:{wanted}");
        let in_use = self.units.tcp.is_active();
        if in_use && port.is_none() {
            return Step::already(TCP, what);
        }
        let listeners = self.broker.iter().flat_map(|broker| &broker.listeners).filter(|listener| listener.kind == "tcp");
        let served = |l: &ListenerStatus| l.listening && l.address.ends_with(&format!(":{wanted}"));
        if port.is_none() && self.units.service.is_active() && listeners.clone().any(served) {
            return Step::already(TCP, format!("{what} (the broker does it itself)"));
        }
        // A broker started by hand is about to give it back.
        let by_hand = self.broker.is_some() && !self.units.service.is_active();
        if !by_hand && TcpListener::bind(("127.0.0.1", wanted)).is_err() {
            let said = listeners.filter_map(|listener| listener.problem.as_ref()).next();
            let held = said.map(|said| format!(": {said}")).unwrap_or_default();
            let help = "is in other hands, and only sessions of the reference system need it; `--port N` takes another";
            return Step::left_out(TCP, format!("{what}{held}"), format!("port {wanted} {help}"));
        }
        let mut calls = Vec::new();
        if self.units.service.is_active() {
            // systemd opens no socket for a service that runs. The next connection starts it again, nothing is lost.
            calls.push(systemd.on("stop", [SERVICE]));
        }
        if self.units.tcp.is_failed() {
            calls.push(systemd.on("reset-failed", [TCP_SOCKET]));
        }
        calls.push(systemd.on(if in_use { "restart" } else { "start" }, [TCP_SOCKET]));
        Step::to_do(TCP, what, async move {
            let help = "sessions use the Unix socket; only those of the reference system need the port: `--port N` takes another";
            let left = |problem: Problem| Ended::LeftOut(Problem::new(problem.what, help));
            Ok(run(calls).await.map_or_else(left, Ended::from))
        })
    }

    /// A broker of another version, or of units that change, is replaced by the installed one.
    fn renew(&self, changed: bool) -> Option<Step> {
        let broker = self.broker.as_ref().filter(|_| self.units.service.is_active())?;
        let what = match broker.version.as_str() {
            VERSION if !changed => return None,
            VERSION => "restart it with the new units".to_owned(),
            other => format!("restart it as version {VERSION} (it is {other})"),
        };
        Some(Step::calls(BROKER, what, vec![self.units.systemd.on("try-restart", [SERVICE])]))
    }

    fn close(&self) -> Step {
        let (systemd, units) = (&self.units.systemd, self.units.all());
        let mut calls = Vec::new();
        if self.units.socket.is_enabled() || self.units.tcp.is_enabled() {
            calls.push(systemd.on("disable", SOCKETS));
        }
        if units.iter().any(|unit| !matches!(unit.get("ActiveState"), "inactive" | "failed" | "")) {
            calls.push(systemd.on("stop", [SOCKET, TCP_SOCKET, SERVICE]));
        }
        let failed = names(units, Unit::is_failed);
        calls.extend(systemd.on_any("reset-failed", failed));
        Step::calls(SOCKET_STEP, "stop the sockets and the broker, and have them not start by themselves any more", calls)
    }

    /// The step that keeps the units of a package, which stay and which the package has enabled, from starting again.
    fn forbid(&self) -> Step {
        let names = names(self.four(), |unit| !unit.is_masked());
        let calls = self.units.systemd.on_any("mask", names).into_iter().collect();
        Step::calls(MASK, "mask the units of the package for this user; `claude-peers setup` unmasks them", calls)
    }
}

fn names<const N: usize>(units: [&Unit; N], wanted: fn(&Unit) -> bool) -> Vec<&str> {
    units.into_iter().filter(|unit| wanted(unit)).map(|unit| unit.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_starts_the_program_of_its_place() {
        let text = "[Service]\nExecStart=/usr/bin/claude-peersd\nUMask=0077\n";
        assert_eq!(placed(text, "/home/u/.cargo/bin/"), "[Service]\nExecStart=/home/u/.cargo/bin/claude-peersd\nUMask=0077\n");
        assert_eq!(placed(text, "/a b/100%/"), "[Service]\nExecStart=\"/a b/100%%/claude-peersd\"\nUMask=0077\n");
        for (name, text) in UNITS {
            let text = placed(text, "/opt/x/");
            assert!(!text.contains(PACKAGED), "{name}: {text}");
        }
    }
}
