//! The service manager and our units in it.

use super::{Finding, failed, fix::Fix, ok, scene::Scene, skipped, warning};
use crate::{
    admin::{
        manager::{Launchd, Manager, SERVICE, SOCKETS, Unit, Units},
        setup::{Found, Place, found},
    },
    platform::{call::Call, kernel},
};
use std::{path::Path, time::Duration};

const JOURNAL_PATIENCE: Duration = Duration::from_secs(10);
/// Where packages put units of users.
const PACKAGED: [&str; 3] = ["/usr/lib/systemd/user", "/lib/systemd/user", "/usr/share/systemd/user"];
const SETUP: &str = "`claude-peers setup`";

pub async fn check(scene: &Scene) -> Vec<Finding> {
    let finding = match (&scene.manager, &scene.units) {
        (Manager::None(absent), _) => {
            let what = format!("{}; a broker runs only while somebody runs `claude-peersd`", absent.reason);
            absent.help.map_or_else(|| skipped(&what), |help| warning(&what, help))
        }
        (Manager::Launchd(launchd), _) => agent(launchd).await,
        (Manager::Systemd(_), None) => {
            failed("systemd does not tell about the units", "look at `systemctl --user status`, or log in again")
        }
        (Manager::Systemd(_), Some(units)) if !units.installed() => {
            warning("the units are not installed: nothing starts the broker by itself", SETUP)
        }
        (Manager::Systemd(_), Some(units)) => return states(scene, units).await,
    };
    vec![finding]
}

async fn agent(launchd: &Launchd) -> Finding {
    if !launchd.knows().await {
        return failed("launchd does not know the broker: nothing starts it by itself", SETUP);
    }
    match launchd.pid().await {
        Ok(Some(pid)) => ok(format!("launchd runs the broker (pid {pid})")),
        Ok(None) => ok("launchd listens and starts the broker with the next connection"),
        Err(error) => failed(error.to_string(), "log out and in again"),
    }
}

/// Has the service manager listen, if there is one that knows the broker.
pub fn start(scene: &Scene) -> Vec<Fix> {
    match (&scene.manager, scene.installed_units()) {
        (Manager::Launchd(launchd), _) => vec![Fix::Run(launchd.kickstart())],
        (_, Some(units)) => start_sockets(units),
        _ => Vec::new(),
    }
}

/// Brings failed and stopped sockets back: the service is started by the next connection. A socket cannot be started under a
/// broker that runs; it stops first, and what is connected to it comes back by itself.
fn start_sockets(units: &Units) -> Vec<Fix> {
    let systemd = &units.systemd;
    let stop = units.service.is_active().then(|| systemd.on("stop", [SERVICE]));
    let reset = systemd.on("reset-failed", units.all().map(|unit| unit.name.as_str()));
    let calls = [systemd.reload()].into_iter().chain(stop).chain([reset, systemd.on("start", SOCKETS)]);
    calls.map(Fix::Run).collect()
}

/// A finding for every unit that is not as it should be; one if all are.
async fn states(scene: &Scene, units: &Units) -> Vec<Finding> {
    let mut findings: Vec<_> = units.all().into_iter().filter_map(unloaded).collect();
    if !findings.is_empty() {
        return findings;
    }
    match failed_service(units).await {
        // It takes its sockets down, and its remedy brings them back.
        Some(finding) => findings.push(finding),
        None => findings.extend(failed_sockets(scene, units).or_else(|| port_without_unit(scene, units))),
    }
    if units.all().iter().any(|unit| unit.get("NeedDaemonReload") == "yes") {
        let what = "the unit files were changed and systemd has not read them again";
        findings.push(warning(what, "`systemctl --user daemon-reload`").fixes([Fix::Run(units.systemd.reload())]));
    }
    let disabled: Vec<_> = units.sockets().into_iter().filter(|unit| !unit.is_enabled()).map(|unit| unit.name.as_str()).collect();
    if !disabled.is_empty() {
        let what = format!("{} not enabled: nothing listens after the next login", list(&disabled));
        findings.push(warning(what, format!("`systemctl --user enable --now {}`", disabled.join(" "))));
    }
    if findings.is_empty() {
        let sockets = if units.tcp.is_active() { "both sockets" } else { "the Unix socket (for the other see tcp-socket)" };
        let broker = match units.service.pid() {
            Some(pid) => format!("the broker runs (pid {pid})"),
            None => "the broker starts with the next connection".to_owned(),
        };
        findings.push(ok(format!("systemd {} listens on {sockets}, {broker}", units.systemd.version)));
    }
    findings
}

fn list(names: &[&str]) -> String {
    format!("{} {}", names.join(" and "), if names.len() == 1 { "is" } else { "are" })
}

/// A unit that systemd cannot start at all.
fn unloaded(unit: &Unit) -> Option<Finding> {
    let name = &unit.name;
    if unit.is_masked() {
        let help = format!("if you want it to run: `systemctl --user unmask {name}`, then `claude-peers doctor --fix`");
        return Some(failed(format!("{name} is masked: somebody has forbidden that it is started"), help));
    }
    // `org.freedesktop.systemd1.NoSuchUnit "Unit x.service not found."`
    let error = unit.get("LoadError").split_once(' ').map(|(_, text)| text.trim_matches('"'));
    let why = error.unwrap_or(unit.get("LoadState"));
    let help = "install the units again: `claude-peers setup`, or the package";
    (!unit.is_loaded()).then(|| failed(format!("{name} cannot be loaded: {why}"), help))
}

/// The broker does not stay up: why it ended, and its last words.
async fn failed_service(units: &Units) -> Option<Finding> {
    let service = &units.service;
    let hit_limit = units.sockets().iter().any(|socket| socket.get("Result").contains("start-limit-hit"));
    let looping = service.get("SubState") == "auto-restart";
    if !service.is_failed() && !hit_limit && !looping {
        return None;
    }
    let (result, status) = (service.get("Result"), service.get("ExecMainStatus"));
    let how = if looping {
        let times = service.get("NRestarts");
        format!("ends as soon as it is started, and is started again and again ({times} times so far)")
    } else {
        format!("did not stay up and has been given up ({result})")
    };
    let why = match status {
        "2" => "a setting cannot be used",
        "3" => "another broker is at work on this socket or database",
        "4" => "the database was written by a newer version",
        "203" => "its program cannot be run",
        _ => "its log says why",
    };
    let program = units.program().filter(|_| status == "203").map(|program| format!(" ({})", program.display()));
    let exit = if result == "exit-code" { format!("; exit code {status}: {why}") } else { String::new() };
    let program = program.filter(|_| !exit.is_empty()).unwrap_or_default();
    // What cannot be run says nothing: the journal's last words would be those of an earlier one.
    let last = if status == "203" { Vec::new() } else { last_words().await };
    let said = if last.is_empty() { String::new() } else { format!("; its last words: {}", last.join(" | ")) };
    let help = "mend that (more: `journalctl --user -u claude-peers -n 20`), then `claude-peers doctor --fix`: it starts the sockets \
                again";
    Some(failed(format!("{} {how}{exit}{program}{said}", service.name), help).fixes(start_sockets(units)))
}

/// The last lines of the broker's own in the journal; none if it cannot be read.
async fn last_words() -> Vec<String> {
    let words = ["--user", "-u", "claude-peers", "-t", "claude-peersd", "-n", "2", "-o", "cat", "--no-pager", "-q"];
    let said = Call::new("journalctl", "journalctl", words, JOURNAL_PATIENCE).run().await.unwrap_or_default();
    let mut lines: Vec<_> = said.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
    lines.dedup(); // each start ends with the same ones
    lines
}

fn failed_sockets(scene: &Scene, units: &Units) -> Option<Finding> {
    // The port in other hands is told by the check of the port.
    let taken = scene.tcp_port().is_some_and(|port| kernel::listening(port).is_some());
    let down = units.sockets().into_iter().filter(|unit| !unit.is_active() && (unit.name != units.tcp.name || !taken));
    let down: Vec<_> = down.collect();
    let (first, names) = (*down.first()?, down.iter().map(|unit| unit.name.as_str()).collect::<Vec<_>>());
    let how = match (first.is_failed(), first.get("Result")) {
        (true, "service-start-limit-hit" | "trigger-limit-hit") => "down, because the broker was started too often".to_owned(),
        (true, result) => format!("down: {result}"),
        (false, _) => "stopped: nothing starts the broker".to_owned(),
    };
    let help = format!("`claude-peers doctor --fix`, or `systemctl --user start {}`", names.join(" "));
    Some(failed(format!("{} {how}", list(&names)), help).fixes(start_sockets(units)))
}

/// The broker has taken the port itself, as its unit was down when it started: once it has left, nobody listens there.
fn port_without_unit(scene: &Scene, units: &Units) -> Option<Finding> {
    let takes_it = scene.broker()?.listeners.iter().any(|listener| listener.kind == "tcp" && listener.listening);
    let what = format!("{} is down: the broker listens on the port itself, and nobody does once it has left", units.tcp.name);
    let finding = warning(what, "`claude-peers doctor --fix`: sessions come back by themselves").fixes(start_sockets(units));
    (takes_it && units.service.is_active() && !units.tcp.is_active()).then_some(finding)
}

/// Units of one's own, or of the machine's administrator, that hide the package's.
pub fn shadows(scene: &Scene) -> Option<Finding> {
    let units = scene.installed_units()?;
    let hides = |unit: &&Unit| {
        let file = unit.file().filter(|_| !unit.is_masked())?;
        let packaged = PACKAGED.iter().any(|folder| Path::new(folder).join(&unit.name).is_file());
        (packaged && !PACKAGED.iter().any(|folder| file.starts_with(folder))).then(|| file.to_owned())
    };
    let files: Vec<_> = units.all().iter().filter_map(hides).collect();
    if files.is_empty() {
        let folder = units.service.file().and_then(Path::parent);
        let folder = folder.map(|folder| format!(" (in {})", folder.display())).unwrap_or_default();
        return Some(ok(format!("nothing hides the units{folder}")));
    }
    let shown: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
    let (hide, unit, it) = if files.len() == 1 { ("hides", "unit", "it") } else { ("hide", "units", "them") };
    let what = format!("{} {hide} the package's {unit}: an upgrade of the package does not reach {it}", shown.join(" and "));
    let (ours, others): (Vec<_>, Vec<_>) = files.iter().partition(|file| matches!(found(file), Ok(Found::Ours)));
    let of_the_package = Place::find().is_ok_and(|place| place.package.is_some());
    if others.is_empty() && !of_the_package {
        // Setup said so when it wrote them, and this copy is the one that they start.
        return Some(warning(what, "`claude-peers setup --undo` gives way to the package; or remove the package"));
    }
    let again = [units.systemd.reload(), units.systemd.on("try-restart", [SERVICE])];
    let help = format!("`rm {}`, then `{}` and `{}`", shown.join(" "), again[0], again[1]);
    let removed: Vec<_> = ours.into_iter().map(|file| Fix::RemoveUnit(file.clone())).collect();
    let again = again.into_iter().filter(|_| !removed.is_empty()).map(Fix::Run).collect::<Vec<_>>();
    Some(failed(what, help).fixes(removed).fixes(again))
}
