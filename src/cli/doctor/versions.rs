//! The versions of everything that works together, and copies of our programs that lie about.

use super::{Finding, programs, scene::Scene};
use crate::wire::VERSION;
use std::path::{Path, PathBuf};

const VERSIONS: &str = "versions";

/// A program of ours, or the broker as it runs.
#[derive(Debug)]
struct Part {
    /// What it is to this installation.
    role: &'static str,
    path: PathBuf,
    /// Its version, or why it is not known.
    version: Result<String, String>,
}

impl Part {
    async fn of(role: &'static str, path: PathBuf) -> Self {
        let version = programs::version(&path).await;
        Self { role, path, version }
    }

    fn fits(&self) -> bool {
        self.version.as_deref() == Ok(VERSION)
    }

    fn shown(&self) -> String {
        match &self.version {
            Ok(version) => format!("{} {version} ({})", self.role, self.path.display()),
            Err(why) => format!("{} unknown ({why})", self.role),
        }
    }
}

/// Whether what works together has one version, and which other copies could be taken by mistake.
pub async fn check(scene: &Scene) -> Vec<Finding> {
    let parts = working(scene).await;
    let strangers: Vec<_> = parts.iter().filter(|part| !part.fits()).collect();
    let finding = if strangers.is_empty() {
        let roles: Vec<_> = parts.iter().map(|part| part.role).collect();
        Finding::ok(VERSIONS, format!("{VERSION}: {}", roles.join(", ")))
    } else {
        let all: Vec<_> = parts.iter().map(Part::shown).collect();
        Finding::failed(
            VERSIONS,
            format!("what works together is not of one version: {}", all.join(", ")),
            help(scene, &strangers),
        )
    };
    let mut findings = vec![finding];
    findings.extend(others(&parts).await);
    findings
}

/// What works together: this program, those beside it, the broker, the service, the registered server.
async fn working(scene: &Scene) -> Vec<Part> {
    let me = std::env::current_exe().unwrap_or_else(|_| PathBuf::from(programs::NAMES[0]));
    let mut parts = vec![Part { role: "this program", path: me, version: Ok(VERSION.to_owned()) }];
    if let Some(broker) = scene.broker() {
        let path =
            std::fs::read_link(format!("/proc/{}/exe", broker.pid)).unwrap_or_else(|_| format!("pid {}", broker.pid).into());
        parts.push(Part { role: "running broker", path, version: Ok(broker.version.clone()) });
    }
    let service = scene.units.as_ref().and_then(|units| units.program.clone());
    let registered = scene.registrations.as_ref().ok().and_then(|all| all.own()).filter(|server| server.is_ours());
    let registered = registered.and_then(|server| which::which(&server.command).ok());
    let named = [
        ("broker of the service", service),
        ("registered MCP server", registered),
        ("broker beside this program", programs::beside("claude-peersd")),
        ("MCP server beside this program", programs::beside("claude-peers-mcp")),
    ];
    for (role, path) in named {
        if let Some(path) = path
            && !parts.iter().any(|part| part.role != "running broker" && programs::same(&part.path, &path))
        {
            parts.push(Part::of(role, path).await);
        }
    }
    parts
}

fn help(scene: &Scene, strangers: &[&Part]) -> String {
    // The file was replaced, and the broker still runs from before.
    if let [Part { role: "running broker", .. }] = strangers {
        let manager = scene.units.as_ref().filter(|units| units.service.is_active());
        let restart = manager.map_or("`claude-peers stop`, and start it again", |_| "`systemctl --user restart claude-peers`");
        return format!("the broker runs from before an upgrade, or from another place: {restart}");
    }
    "keep one installation: upgrade them together, or remove one (`sudo apt remove claude-peers` for the package, `cargo uninstall \
     claude-peers` for one of your own), then run `claude-peers setup` and restart the broker (`claude-peers stop`)"
        .to_owned()
}

/// Copies on `PATH` of another version that nothing uses until somebody types their name.
async fn others(parts: &[Part]) -> Option<Finding> {
    let is_part = |path: &Path| parts.iter().any(|part| programs::same(&part.path, path));
    let mut found: Vec<Part> = Vec::new();
    for path in programs::NAMES.iter().flat_map(|name| programs::on_path(name)) {
        if !is_part(&path) && !found.iter().any(|part| programs::same(&part.path, &path)) {
            found.push(Part::of("", path).await);
        }
    }
    found.retain(|part| !part.fits());
    if found.is_empty() {
        return None;
    }
    let shown: Vec<_> = found.iter().map(|part| part.shown().trim_start().to_owned()).collect();
    Some(Finding::warning(
        VERSIONS,
        format!("other copies lie on PATH: {}; this one is {VERSION}", shown.join(", ")),
        "remove the copies that you do not want, so that the same programs are found everywhere",
    ))
}
