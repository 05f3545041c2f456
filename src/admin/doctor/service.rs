//! The service manager and our units in it.

use super::{
    finding::{Finding, Fix, failed, ok, skipped, warning},
    scene::Scene,
};
use crate::{
    admin::{
        manager::{Launchd, Manager, SERVICE, SOCKETS, Unit, Units},
        place::Place,
        setup::{Found, found},
    },
    platform::{call::Call, kernel},
    wire::BrokerExit,
};
use std::{path::Path, time::Duration};

const JOURNAL_PATIENCE: Duration = Duration::from_secs(10);
/// Where packages install user units.
const PACKAGED: [&str; 3] = ["/usr/lib/systemd/user", "/lib/systemd/user", "/usr/share/systemd/user"];
const SETUP: &str = "`claude-peers setup`";
/// The exit code of a unit whose program systemd cannot run.
const NOT_RUN: &str = "203";

pub async fn check(scene: &Scene) -> Vec<Finding> {
    let finding = match (&scene.manager, &scene.units) {
        (Manager::None(absent), _) => {
            let what = format!("{}; a broker runs only once `claude-peers start` has started it", absent.reason);
            absent.help.map_or_else(|| skipped(&what), |help| warning(&what, help))
        }
        (Manager::Launchd(launchd), _) => agent(launchd).await,
        (Manager::Systemd(_), None) => {
            failed("systemd gives no state of the units", "look at `systemctl --user status`, or log in again")
        }
        (Manager::Systemd(_), Some(units)) if !units.installed() => {
            warning("the units are not installed, so the broker does not start by itself", SETUP)
        }
        (Manager::Systemd(_), Some(units)) => return states(scene, units).await,
    };
    vec![finding]
}

async fn agent(launchd: &Launchd) -> Finding {
    if !launchd.knows().await {
        return failed("launchd does not know the broker, which therefore does not start by itself", SETUP);
    }
    match launchd.pid().await {
        Ok(Some(pid)) => ok(format!("launchd runs the broker (pid {pid})")),
        Ok(None) => ok("launchd listens and starts the broker on the next connection"),
        Err(error) => failed(error.to_string(), "log out and in again"),
    }
}

/// Makes the service manager listen, if it knows the broker.
pub fn start(scene: &Scene) -> Vec<Fix> {
    match (&scene.manager, scene.installed_units()) {
        (Manager::Launchd(launchd), _) => vec![Fix::Run(launchd.on(&["kickstart"]))],
        (_, Some(units)) => start_sockets(units),
        _ => Vec::new(),
    }
}

/// Starts failed and stopped sockets; the next connection starts the service. A socket cannot start while the broker runs, so the
/// broker stops first, and its clients reconnect.
fn start_sockets(units: &Units) -> Vec<Fix> {
    let systemd = &units.systemd;
    let stop = units.service.is_active().then(|| systemd.on("stop", [SERVICE]));
    let reset = systemd.on("reset-failed", units.all().map(|unit| unit.name.as_str()));
    let calls = [systemd.reload()].into_iter().chain(stop).chain([reset, systemd.on("start", SOCKETS)]);
    calls.map(Fix::Run).collect()
}

/// A finding for every unit with a problem, or one if all is well.
async fn states(scene: &Scene, units: &Units) -> Vec<Finding> {
    let mut findings: Vec<_> = units.all().into_iter().filter_map(unloaded).collect();
    if !findings.is_empty() {
        return findings;
    }
    match failed_service(units).await {
        // A failed service takes its sockets down, and its remedy starts them again.
        Some(finding) => findings.push(finding),
        None => findings.extend(failed_sockets(scene, units).or_else(|| port_without_unit(scene, units))),
    }
    if units.all().iter().any(|unit| unit.get("NeedDaemonReload") == "yes") {
        let what = "the unit files were changed, and systemd has not read them again";
        findings.push(warning(what, "`systemctl --user daemon-reload`").fixes([Fix::Run(units.systemd.reload())]));
    }
    let disabled: Vec<_> = units.sockets().into_iter().filter(|unit| !unit.is_enabled()).map(|unit| unit.name.as_str()).collect();
    if !disabled.is_empty() {
        let what = format!("{} not enabled: after the next login, no unit listens", list(&disabled));
        findings.push(warning(what, format!("`systemctl --user enable --now {}`", disabled.join(" "))));
    }
    if findings.is_empty() {
        let sockets = if units.tcp.is_active() { "both sockets" } else { "the Unix socket (for the other see tcp-socket)" };
        let broker = units.service.pid().map(|pid| format!("the broker runs (pid {pid})"));
        let broker = broker.unwrap_or_else(|| "the broker starts on the next connection".to_owned());
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
        let help = format!("to let it start: `systemctl --user unmask {name}`, then `claude-peers doctor --fix`");
        return Some(failed(format!("{name} is masked, which keeps it from starting"), help));
    }
    // `org.freedesktop.systemd1.NoSuchUnit "Unit x.service not found."`
    let error = unit.get("LoadError").split_once(' ').map(|(_, text)| text.trim_matches('"'));
    let why = error.unwrap_or(unit.get("LoadState"));
    let help = "install the units again: `claude-peers setup`, or the package";
    (!unit.is_loaded()).then(|| failed(format!("{name} cannot be loaded: {why}"), help))
}

/// A broker that does not stay up: its exit reason and its last log lines.
async fn failed_service(units: &Units) -> Option<Finding> {
    let service = &units.service;
    let hit_limit = units.sockets().iter().any(|socket| socket.get("Result").contains("start-limit-hit"));
    let how = if service.get("SubState") == "auto-restart" {
        format!("ends right after each start, and systemd starts it again and again ({} times so far)", service.get("NRestarts"))
    } else if service.is_failed() || hit_limit {
        format!("did not stay up, and systemd has given up ({})", service.get("Result"))
    } else {
        return None;
    };
    let last = last_words(service).await;
    let last = if last.is_empty() { last } else { format!("; its last words: {last}") };
    let help = "correct that (more: `journalctl --user -u claude-peers -n 20`), then `claude-peers doctor --fix`: it starts the sockets \
                again";
    Some(failed(format!("{} {how}{}{last}", service.name, ending(units)), help).fixes(start_sockets(units)))
}

/// Why the service's process ended.
fn ending(units: &Units) -> String {
    let (result, code) = (units.service.get("Result"), units.service.get("ExecMainStatus"));
    let why = match BrokerExit::of(code) {
        _ if result != "exit-code" => return String::new(),
        None if code == NOT_RUN => {
            let program = units.program().map(|program| format!(" ({})", program.display()));
            format!("its program cannot be run{}", program.unwrap_or_default())
        }
        None | Some(BrokerExit::Stopped | BrokerExit::Failure) => "its log says why".to_owned(),
        Some(exit) => exit.meaning().to_owned(),
    };
    format!("; exit code {code}: {why}")
}

/// The broker's last lines in the journal, if this run wrote any.
async fn last_words(service: &Unit) -> String {
    if service.get("ExecMainStatus") == NOT_RUN {
        return String::new();
    }
    let words = ["--user", "-u", "claude-peers", "-t", "claude-peersd", "-n", "2", "-o", "cat", "--no-pager", "-q"];
    let said = Call::new("journalctl", "journalctl", words, JOURNAL_PATIENCE).run().await.unwrap_or_default();
    let mut lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.dedup(); // each start ends with the same lines
    lines.join(" | ")
}

fn failed_sockets(scene: &Scene, units: &Units) -> Option<Finding> {
    // The check of the port reports its holder.
    let taken = scene.tcp_port().is_some_and(|port| kernel::listening(port).is_some());
    let down = units.sockets().into_iter().filter(|unit| !unit.is_active() && (unit.name != units.tcp.name || !taken));
    let down: Vec<_> = down.collect();
    let (first, names) = (*down.first()?, down.iter().map(|unit| unit.name.as_str()).collect::<Vec<_>>());
    let how = match (first.is_failed(), first.get("Result")) {
        (true, "service-start-limit-hit" | "trigger-limit-hit") => "down, because the broker was started too often".to_owned(),
        (true, result) => format!("down: {result}"),
        (false, _) => "stopped, so the broker does not start".to_owned(),
    };
    let help = format!("`claude-peers doctor --fix`, or `systemctl --user start {}`", names.join(" "));
    Some(failed(format!("{} {how}", list(&names)), help).fixes(start_sockets(units)))
}

/// The broker has taken the port itself, because the unit was down when it started. After it stops, no program listens there.
fn port_without_unit(scene: &Scene, units: &Units) -> Option<Finding> {
    let takes_it = scene.broker()?.listeners.iter().any(|listener| listener.kind == "tcp" && listener.listening);
    let what = format!("{} is down: the broker listens on the port itself, and no program does after it stops", units.tcp.name);
    let finding = warning(what, "`claude-peers doctor --fix`; sessions reconnect by themselves").fixes(start_sockets(units));
    (takes_it && units.service.is_active() && !units.tcp.is_active()).then_some(finding)
}

/// The user's or the administrator's units that hide the package's.
pub fn shadows(scene: &Scene) -> Option<Finding> {
    let units = scene.installed_units()?;
    let is_packaged = |file: &Path| PACKAGED.iter().any(|folder| file.starts_with(folder));
    let hides = |unit: &&Unit| {
        let file = unit.file().filter(|file| !unit.is_masked() && !is_packaged(file))?;
        PACKAGED.iter().any(|folder| Path::new(folder).join(&unit.name).is_file()).then(|| file.to_owned())
    };
    let files: Vec<_> = units.all().iter().filter_map(hides).collect();
    if files.is_empty() {
        let folder = units.service.file().and_then(Path::parent);
        let folder = folder.map(|folder| format!(" (in {})", folder.display())).unwrap_or_default();
        return Some(ok(format!("no other units hide them{folder}")));
    }
    let shown: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
    let (hide, unit, it) = if files.len() == 1 { ("hides", "unit", "it") } else { ("hide", "units", "them") };
    let what = format!("{} {hide} the package's {unit}: an upgrade of the package does not reach {it}", shown.join(" and "));
    let (ours, others): (Vec<_>, Vec<_>) = files.iter().partition(|file| matches!(found(file), Ok(Found::Ours)));
    if others.is_empty() && !Place::find().is_ok_and(|place| place.package.is_some()) {
        // Setup warned when it wrote them, and they start this copy.
        return Some(warning(what, "`claude-peers setup --undo` gives way to the package; or remove the package"));
    }
    let again = [units.systemd.reload(), units.systemd.on("try-restart", [SERVICE])];
    let help = format!("`rm {}`, then `{}` and `{}`", shown.join(" "), again[0], again[1]);
    let removed: Vec<_> = ours.into_iter().map(|file| Fix::RemoveUnit(file.clone())).collect();
    let again = if removed.is_empty() { Vec::new() } else { again.map(Fix::Run).to_vec() };
    Some(failed(what, help).fixes(removed).fixes(again))
}
