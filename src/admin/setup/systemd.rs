//! The service under systemd: the package's units or copies in the user's folder, their sockets, and a broker that blocks them.

use super::{
    files::{Change, Draft, Found, found},
    step::Step,
};
use crate::{
    admin::{
        manager::{SERVICE, SOCKET, SOCKETS, Systemd, TCP_SOCKET, Unit, Units},
        place::Place,
        stop,
    },
    client::Client,
    console::Failure,
    platform::paths::DEFAULT_PORT,
    wire::{BrokerStatus, ListenerStatus, VERSION},
};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
};

const UNITS: [(&str, &str); 4] = [
    (SOCKET, include_str!("../../../systemd/claude-peers.socket")),
    (TCP_SOCKET, include_str!("../../../systemd/claude-peers-tcp.socket")),
    ("claude-peers-port-taken.service", include_str!("../../../systemd/claude-peers-port-taken.service")),
    (SERVICE, include_str!("../../../systemd/claude-peers.service")),
];
/// Makes the session bus start the service.
const ACTIVATION: (&str, &str) =
    ("dev.claudepeers.Broker1.service", include_str!("../../../packaging/dbus/dev.claudepeers.Broker1.service"));
/// The path of the broker in these files.
const PACKAGED: &str = "/usr/bin/claude-peersd";

pub async fn put(place: &Place, systemd: &Systemd, port: Option<u16>) -> Result<Vec<Step>, Failure> {
    let folder = folder(place, systemd);
    let mut change = Change::default();
    // Copies of ours would hide a package's units.
    change.add(copies(place, &folder), place.package.is_none())?;
    let copied = change.count();
    change.add(port.map(|port| drop_ins(&folder, port)).into_iter().flatten(), port != Some(DEFAULT_PORT))?;
    let (new_port, changed) = (port.filter(|_| change.count() > copied), change.count() > 0);
    let sockets = Sockets::look(systemd).await?;
    let mut steps = put_files(change, place, systemd, &folder, new_port);
    steps.extend(sockets.stop_other());
    steps.push(sockets.enable(place.package.is_some()));
    steps.push(sockets.open_tcp(new_port));
    steps.extend(sockets.renew(changed && new_port.is_none()));
    Ok(steps)
}

pub async fn take_back(place: &Place, systemd: &Systemd) -> Result<Vec<Step>, Failure> {
    let folder = folder(place, systemd);
    let sockets = Sockets::look(systemd).await?;
    let mut change = Change::default();
    let drafts = copies(place, &folder).into_iter().chain(drop_ins(&folder, DEFAULT_PORT));
    change.add(drafts.filter(|draft| found(&draft.path) != Ok(Found::Foreign)), false)?;
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
    // systemd may have started without this shell's variable.
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
    if change.count() > 0 {
        let files = |count| if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
        let (write, remove) = (change.write.len(), change.remove.len());
        let write = (write > 0).then(|| format!("write {} into {folder}", files(write)));
        let remove = (remove > 0).then(|| format!("remove {} of an earlier setup", files(remove)));
        let what = write.into_iter().chain(remove).collect::<Vec<_>>().join(", ");
        let what = what + &port.map(|port| format!(", for TCP port {port}")).unwrap_or_default();
        let hides = place.package.is_none() && Path::new("/usr/lib/systemd/user").join(SERVICE).exists();
        let note = hides.then(|| "they replace the package's units in /usr/lib/systemd/user".to_owned());
        steps.push(Step::to_do(what, make(change, place.clone(), systemd.clone())).note(note));
    } else if steps.is_empty() {
        let package = place.package.as_ref().map(|package| format!("use the package's units in {}", package.display()));
        steps.push(Step::already(package.unwrap_or_else(|| format!("write the units into {folder}"))));
    }
    steps
}

async fn make(change: Change, place: Place, systemd: Systemd) -> Result<(), Failure> {
    if place.package.is_some() && change.remove.iter().any(|path| path.ends_with(SOCKET)) {
        // Removes the links to our copies; the package has enabled its own units for all users.
        systemd.on("disable", SOCKETS).run().await?;
    }
    change.make(&place)?;
    systemd.reload().run().await?;
    Ok(())
}

fn client(systemd: &Systemd) -> Client {
    Client::new(systemd.socket(), "claude-peers")
}

/// The state of our units in systemd before anything changes.
struct Sockets {
    units: Units,
    /// A broker that already answers, however it was started.
    broker: Option<BrokerStatus>,
}

impl Sockets {
    /// Starts nothing.
    async fn look(systemd: &Systemd) -> Result<Self, Failure> {
        let units = systemd.our_units().await?;
        // A connection to systemd's socket would start the broker.
        let asks = units.service.is_active() || !units.socket.is_active();
        let broker = if asks { client(systemd).get("/v1/status", None).await.ok() } else { None };
        Ok(Self { units, broker })
    }

    /// Stops a broker started by hand, which would lock the service out of its database.
    fn stop_other(&self) -> Option<Step> {
        let broker = self.broker.as_ref().filter(|_| !self.units.service.is_active() && !self.units.socket.is_active())?;
        let (client, what) =
            (client(&self.units.systemd), format!("the broker that was started by hand (process {})", broker.pid));
        let step = Step::telling(format!("stop {what}"), async move {
            stop::stop(&client).await?;
            Ok(Some(format!("stopped {what}; the service takes over")))
        });
        Some(step.named("broker"))
    }

    /// All units, including the one that registers a package's MCP server.
    fn four(&self) -> [&Unit; 4] {
        let Units { socket, tcp, service, login, .. } = &self.units;
        [socket, tcp, service, login]
    }

    fn enable(&self, package: bool) -> Step {
        let Units { systemd, socket, tcp, service, .. } = &self.units;
        // A package has enabled its units for all users, which shows once they are unmasked.
        let enabled = [socket, tcp].into_iter().all(|unit| unit.is_enabled() || (package && unit.is_masked()));
        let calls = [
            systemd.on_those("unmask", self.four(), Unit::is_masked),
            // Not the TCP socket: where another program holds the port, it may stay failed.
            systemd.on_those("reset-failed", [socket, service], Unit::is_failed),
            (!enabled).then(|| systemd.on("enable", SOCKETS)),
            (!socket.is_active()).then(|| systemd.on("start", [SOCKET])),
        ];
        Step::calls(format!("start {SOCKET} and {TCP_SOCKET} now and at login"), calls).named("sockets")
    }

    /// `port`: the port changes to this value.
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
            let calls = [
                // systemd opens no socket for a running service. The next connection starts it again.
                service.is_active().then(|| systemd.on("stop", [SERVICE])),
                tcp.is_failed().then(|| systemd.on("reset-failed", [TCP_SOCKET])),
                Some(systemd.on(if tcp.is_active() { "restart" } else { "start" }, [TCP_SOCKET])),
            ];
            let help = "sessions use the Unix socket; only legacy clients need the port: `--port N` takes another";
            Step::calls(what, calls).may_fail(help)
        };
        step.named("tcp_port")
    }

    /// Restarts a broker of another version, or a broker whose units change.
    fn renew(&self, changed: bool) -> Option<Step> {
        let broker = self.broker.as_ref().filter(|_| self.units.service.is_active())?;
        let what = match broker.version.as_str() {
            VERSION if !changed => return None,
            VERSION => "restart the broker with the new units".to_owned(),
            other => format!("restart the broker as version {VERSION} (it is {other})"),
        };
        Some(Step::calls(what, [Some(self.units.systemd.restart())]).named("broker"))
    }

    fn close(&self) -> Step {
        let (systemd, units) = (&self.units.systemd, self.units.all());
        let enabled = self.units.sockets().iter().any(|unit| unit.is_enabled());
        let runs = units.iter().any(|unit| !["inactive", "failed", ""].contains(&unit.get("ActiveState")));
        let calls = [
            enabled.then(|| systemd.on("disable", SOCKETS)),
            runs.then(|| systemd.on("stop", [SOCKET, TCP_SOCKET, SERVICE])),
            systemd.on_those("reset-failed", units, Unit::is_failed),
        ];
        Step::calls("stop the broker and its sockets, now and at login", calls).named("sockets")
    }

    /// Keeps the units that the package has enabled from starting again.
    fn mask(&self) -> Step {
        let calls = [self.units.systemd.on_those("mask", self.four(), |unit| !unit.is_masked())];
        Step::calls("mask the package's units for this user; `claude-peers setup` unmasks them", calls).named("mask")
    }
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
