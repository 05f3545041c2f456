//! The service under systemd: the units, which are the package's or copies in the user's folder; their sockets; and a broker in
//! their way.

use super::{
    files::{Change, Draft, Found, found},
    place::Place,
    step::{Ended, Step, run},
};
use crate::{
    admin::{
        manager::{SERVICE, SOCKET, SOCKETS, Systemd, TCP_SOCKET, Unit, Units},
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

/// The first step; the others have names of their own.
pub const NAME: &str = "units";
const SOCKETS_STEP: &str = "sockets";
const TCP_STEP: &str = "tcp_port";
const BROKER_STEP: &str = "broker";
const UNITS: [(&str, &str); 3] = [
    (SOCKET, include_str!("../../../systemd/claude-peers.socket")),
    (TCP_SOCKET, include_str!("../../../systemd/claude-peers-tcp.socket")),
    (SERVICE, include_str!("../../../systemd/claude-peers.service")),
];
/// Makes the session bus start the service.
const ACTIVATION: (&str, &str) =
    ("dev.claudepeers.Broker1.service", include_str!("../../../packaging/dbus/dev.claudepeers.Broker1.service"));
/// The broker in these files.
const PACKAGED: &str = "/usr/bin/claude-peersd";

pub async fn put(place: &Place, systemd: &Systemd, port: Option<u16>) -> Result<Vec<Step>, Problem> {
    let folder = folder(place, systemd);
    let mut change = Change::default();
    for draft in copies(place, &folder) {
        // Copies of ours would hide a package's units.
        change.add(draft, place.package.is_none())?;
    }
    let before = change.count();
    for draft in port.map(|port| drop_ins(&folder, port)).into_iter().flatten() {
        change.add(draft, port != Some(DEFAULT_PORT))?;
    }
    let new_port = port.filter(|_| before != change.count());
    let changed = change.count() > 0;
    let sockets = Sockets::look(systemd).await?;
    let mut steps = put_files(change, place, systemd, &folder, new_port);
    steps.extend(sockets.stop_other());
    steps.push(sockets.enable(place.package.is_some()));
    steps.push(sockets.open_tcp(new_port));
    steps.extend(sockets.renew(changed && new_port.is_none()));
    Ok(steps)
}

pub async fn take_back(place: &Place, systemd: &Systemd) -> Result<Vec<Step>, Problem> {
    let folder = folder(place, systemd);
    let sockets = Sockets::look(systemd).await?;
    let mut change = Change::default();
    for draft in copies(place, &folder).into_iter().chain(drop_ins(&folder, DEFAULT_PORT)) {
        if found(&draft.path)? != Found::Foreign {
            change.add(draft, false)?;
        }
    }
    let mut steps = vec![sockets.close()];
    steps.append(&mut change.in_the_way);
    let what = format!("remove the units from {}", folder.display());
    steps.push(match change.count() {
        0 => Step::already(what),
        _ => Step::to_do(what, make(change, place.clone(), systemd.clone())),
    });
    steps.extend(place.package.as_ref().map(|_| sockets.mask()));
    Ok(steps)
}

/// The user's folder of units.
fn folder(place: &Place, systemd: &Systemd) -> PathBuf {
    let set = place.folder("XDG_CONFIG_HOME", ".config").join("systemd/user");
    // systemd may have started without the variable that this shell has.
    if systemd.unit_path.is_empty() || systemd.unit_path.contains(&set) { set } else { place.home.join(".config/systemd/user") }
}

/// Copies of the package's files, for the broker of this place.
fn copies(place: &Place, folder: &Path) -> Vec<Draft> {
    let services = place.folder("XDG_DATA_HOME", ".local/share").join("dbus-1/services");
    let copy = |folder: &Path, (name, text): (&str, &str)| Draft::text(folder.join(name), &placed(text, &place.bin));
    UNITS.into_iter().map(|unit| copy(folder, unit)).chain([copy(&services, ACTIVATION)]).collect()
}

fn drop_ins(folder: &Path, port: u16) -> [Draft; 2] {
    let file = |unit: &str, text: &str| Draft::text(folder.join(format!("{unit}.d/port.conf")), text);
    let listen = "[Socket]\n# Instead of the one that the unit names.\nListenStream=\nListenStream=127.0.0.1";
    let environment = "[Service]\nEnvironment=CLAUDE_PEERS_PORT";
    [file(TCP_SOCKET, &format!("{listen}:{port}\n")), file(SERVICE, &format!("{environment}={port}\n"))]
}

/// The file `text` for the broker in `bin`.
fn placed(text: &str, bin: &Path) -> String {
    let program = bin.join("claude-peersd").to_string_lossy().replace('%', "%%");
    let quoted = if program.contains(char::is_whitespace) { format!("\"{program}\"") } else { program };
    text.replace(PACKAGED, &quoted)
}

fn put_files(mut change: Change, place: &Place, systemd: &Systemd, folder: &Path, port: Option<u16>) -> Vec<Step> {
    let mut steps = std::mem::take(&mut change.in_the_way);
    let folder = folder.display();
    if change.count() == 0 && steps.is_empty() {
        let already = match &place.package {
            Some(package) => format!("use the package's units in {}", package.display()),
            None => format!("write the units into {folder}"),
        };
        return vec![Step::already(already)];
    }
    let mut what = Vec::new();
    if !change.write.is_empty() {
        what.push(format!("write {} into {folder}", files(change.write.len())));
    }
    if !change.remove.is_empty() {
        what.push(format!("remove {} of an earlier setup", files(change.remove.len())));
    }
    if !what.is_empty() {
        let what = what.join(", ") + &port.map(|port| format!(", for TCP port {port}")).unwrap_or_default();
        let hides = place.package.is_none() && Path::new("/usr/lib/systemd/user").join(SERVICE).exists();
        let note = hides.then(|| "they replace the package's units in /usr/lib/systemd/user".to_owned());
        steps.push(Step::to_do(what, make(change, place.clone(), systemd.clone())).note(note));
    }
    steps
}

async fn make(change: Change, place: Place, systemd: Systemd) -> Result<(), Problem> {
    if place.package.is_some() && change.remove.iter().any(|path| path.ends_with(SOCKET)) {
        // Removes the links to our copies; the package has enabled its own units for all users.
        systemd.on("disable", SOCKETS).run().await?;
    }
    change.make(&place)?;
    systemd.reload().run().await?;
    Ok(())
}

fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// What systemd knows of our units before anything changes.
struct Sockets {
    units: Units,
    /// A broker that answers already, however it was started.
    broker: Option<BrokerStatus>,
}

fn client(systemd: &Systemd) -> Client {
    Client::new(systemd.socket(), "claude-peers")
}

impl Sockets {
    /// Starts nothing.
    async fn look(systemd: &Systemd) -> Result<Self, Problem> {
        let units = systemd.our_units().await?;
        // A connection to systemd's socket would start the broker.
        let asks = units.service.is_active() || !units.socket.is_active();
        let broker = if asks { client(systemd).get("/v1/status", None).await.ok() } else { None };
        Ok(Self { units, broker })
    }

    /// Stops a broker that was started by hand, which would keep its database from the service.
    fn stop_other(&self) -> Option<Step> {
        let broker = self.broker.as_ref().filter(|_| !self.units.service.is_active() && !self.units.socket.is_active())?;
        let (client, what) =
            (client(&self.units.systemd), format!("the broker that was started by hand (process {})", broker.pid));
        let step = Step::to_do(format!("stop {what}"), async move {
            stop::stop(&client).await?;
            Ok(Ended::Said(format!("stopped {what}; the service takes over")))
        });
        Some(step.named(BROKER_STEP))
    }

    /// All units, the one that registers a package's MCP server included.
    fn four(&self) -> [&Unit; 4] {
        let Units { socket, tcp, service, login, .. } = &self.units;
        [socket, tcp, service, login]
    }

    fn enable(&self, package: bool) -> Step {
        let Units { systemd, socket, tcp, service, .. } = &self.units;
        let mut calls = Vec::new();
        calls.extend(systemd.on_any("unmask", names(self.four(), Unit::is_masked)));
        // Not the TCP socket: where another program holds the port, it may stay failed.
        calls.extend(systemd.on_any("reset-failed", names([socket, service], Unit::is_failed)));
        // A package has enabled its units for all users, which shows once they are unmasked.
        if ![socket, tcp].into_iter().all(|unit| unit.is_enabled() || (package && unit.is_masked())) {
            calls.push(systemd.on("enable", SOCKETS));
        }
        if !socket.is_active() {
            calls.push(systemd.on("start", [SOCKET]));
        }
        Step::calls(format!("start {SOCKET} and {TCP_SOCKET} now and at login"), calls).named(SOCKETS_STEP)
    }

    /// `port`: the port changes to this one.
    fn open_tcp(&self, port: Option<u16>) -> Step {
        let Units { systemd, tcp, service, .. } = &self.units;
        let wanted = port.or_else(|| tcp.port()).unwrap_or(DEFAULT_PORT);
        let what = format!("listen on 127.0.0.1:{wanted}");
        let listeners = || self.broker.iter().flat_map(|broker| &broker.listeners).filter(|listener| listener.kind == "tcp");
        let serves = |l: &ListenerStatus| l.listening && l.address.ends_with(&format!(":{wanted}"));
        // A broker started by hand is about to release the port.
        let by_hand = self.broker.is_some() && !service.is_active();
        let step = if port.is_none() && tcp.is_active() {
            Step::already(what)
        } else if port.is_none() && service.is_active() && listeners().any(serves) {
            Step::already(format!("{what} (the broker does so itself)"))
        } else if !by_hand && TcpListener::bind(("127.0.0.1", wanted)).is_err() {
            let said = listeners().find_map(|listener| listener.problem.as_ref());
            let what = said.map_or_else(|| what.clone(), |said| format!("{what}: {said}"));
            Step::skipped(what, format!("port {wanted} is in use; only legacy clients need it: `--port N` takes another"))
        } else {
            // systemd opens no socket for a service that runs. The next connection starts it again.
            let stop = service.is_active().then(|| systemd.on("stop", [SERVICE]));
            let reset = tcp.is_failed().then(|| systemd.on("reset-failed", [TCP_SOCKET]));
            let start = systemd.on(if tcp.is_active() { "restart" } else { "start" }, [TCP_SOCKET]);
            let calls = stop.into_iter().chain(reset).chain([start]).collect();
            Step::to_do(what, async move {
                let help = "sessions use the Unix socket; only legacy clients need the port: `--port N` takes another";
                let skipped = |problem: Problem| Ended::Skipped(Problem::new(problem.what, help));
                Ok(run(calls).await.map_or_else(skipped, Ended::from))
            })
        };
        step.named(TCP_STEP)
    }

    /// Restarts a broker of another version, or whose units change.
    fn renew(&self, changed: bool) -> Option<Step> {
        let broker = self.broker.as_ref().filter(|_| self.units.service.is_active())?;
        let what = match broker.version.as_str() {
            VERSION if !changed => return None,
            VERSION => "restart the broker with the new units".to_owned(),
            other => format!("restart the broker as version {VERSION} (it is {other})"),
        };
        Some(Step::calls(what, vec![self.units.systemd.restart()]).named(BROKER_STEP))
    }

    fn close(&self) -> Step {
        let (systemd, units) = (&self.units.systemd, self.units.all());
        let mut calls = Vec::new();
        if self.units.sockets().iter().any(|unit| unit.is_enabled()) {
            calls.push(systemd.on("disable", SOCKETS));
        }
        if units.iter().any(|unit| !matches!(unit.get("ActiveState"), "inactive" | "failed" | "")) {
            calls.push(systemd.on("stop", [SOCKET, TCP_SOCKET, SERVICE]));
        }
        calls.extend(systemd.on_any("reset-failed", names(units, Unit::is_failed)));
        Step::calls("stop the broker and its sockets, now and at login", calls).named(SOCKETS_STEP)
    }

    /// Keeps a package's units, which the package has enabled, from starting again.
    fn mask(&self) -> Step {
        let names = names(self.four(), |unit| !unit.is_masked());
        let calls = self.units.systemd.on_any("mask", names).into_iter().collect();
        Step::calls("mask the package's units for this user; `claude-peers setup` unmasks them", calls).named("mask")
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
        for (bin, program) in [("/home/u/bin", "/home/u/bin/claude-peersd"), ("/a b/100%", "\"/a b/100%%/claude-peersd\"")] {
            let text = placed("ExecStart=/usr/bin/claude-peersd\nUMask=0077\n", Path::new(bin));
            assert_eq!(text, format!("ExecStart={program}\nUMask=0077\n"));
        }
    }
}
