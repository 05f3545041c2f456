//! Our own programs: where copies of them lie, which version each is, and whether what works together has one version.

use super::{Finding, failed, ok, scene::Scene, warning};
use crate::{
    admin::{
        manager::Units,
        setup::{PROGRAMS, Place},
    },
    platform::call::Call,
    wire::VERSION,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(5);

/// The version that the program says it is: the last word of `NAME VERSION`.
pub async fn version(program: &Path) -> Result<String, String> {
    let call = Call::new(program.to_string_lossy(), program, ["--version"], PATIENCE);
    let said = call.run().await.map_err(|error| error.to_string())?;
    let version = said.split_whitespace().last().filter(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    version.map(str::to_owned).ok_or_else(|| format!("{} does not say its version", program.display()))
}

/// The program `name` that was installed together with this one.
pub fn beside(name: &str) -> Option<PathBuf> {
    // As setup would name it: a folder that stays, where there is one.
    let folder = match Place::find() {
        Ok(place) => place.bin,
        Err(_) => std::env::current_exe().ok()?.parent()?.to_owned(),
    };
    Some(folder.join(name)).filter(|path| path.is_file())
}

/// Every copy of `name` on `PATH`, the one that is run first.
pub fn on_path(name: &str) -> Vec<PathBuf> {
    which::which_all(name).map(Iterator::collect).unwrap_or_default()
}

/// The name of the user `uid`, as far as the system knows it.
pub async fn user(uid: u32) -> String {
    let named = Call::new("id", "id", ["-nu", &uid.to_string()], PATIENCE).run().await;
    named.map(|name| name.trim().to_owned()).unwrap_or_else(|_| format!("number {uid}"))
}

pub fn same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

struct Part {
    role: &'static str,
    path: PathBuf,
    /// Its version, or why it is not known.
    version: Result<String, String>,
}

impl Part {
    async fn of(role: &'static str, path: PathBuf) -> Self {
        let version = version(&path).await;
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
        ok(format!("{VERSION}: {}", parts.iter().map(|part| part.role).collect::<Vec<_>>().join(", ")))
    } else {
        let all = parts.iter().map(Part::shown).collect::<Vec<_>>().join(", ");
        failed(format!("what works together is not of one version: {all}"), help(scene, &strangers))
    };
    std::iter::once(finding).chain(others(&parts).await).collect()
}

/// What works together: this program, those beside it, the broker, the service, the registered server.
async fn working(scene: &Scene) -> Vec<Part> {
    let me = std::env::current_exe().unwrap_or_else(|_| PathBuf::from(PROGRAMS[0]));
    let mut parts = vec![Part { role: "this program", path: me, version: Ok(VERSION.to_owned()) }];
    if let Some(broker) = scene.broker() {
        let path =
            std::fs::read_link(format!("/proc/{}/exe", broker.pid)).unwrap_or_else(|_| format!("pid {}", broker.pid).into());
        parts.push(Part { role: "running broker", path, version: Ok(broker.version.clone()) });
    }
    let service = scene.units.as_ref().and_then(Units::program);
    let registered = scene.registrations.as_ref().ok().and_then(|all| all.own()).filter(|server| server.is_ours());
    let registered = registered.and_then(|server| which::which(&server.command).ok());
    let named = [
        ("broker of the service", service),
        ("registered MCP server", registered),
        ("broker beside this program", beside("claude-peersd")),
        ("MCP server beside this program", beside("claude-peers-mcp")),
    ];
    for (role, path) in named {
        if let Some(path) = path
            && !parts.iter().any(|part| part.role != "running broker" && same(&part.path, &path))
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
    let is_part = |path: &Path| parts.iter().any(|part| same(&part.path, path));
    let mut found: Vec<Part> = Vec::new();
    for path in PROGRAMS.iter().flat_map(|name| on_path(name)) {
        if !is_part(&path) && !found.iter().any(|part| same(&part.path, &path)) {
            found.push(Part::of("", path).await);
        }
    }
    found.retain(|part| !part.fits());
    let shown: Vec<_> = found.iter().map(|part| part.shown().trim_start().to_owned()).collect();
    let what = format!("other copies lie on PATH: {}; this one is {VERSION}", shown.join(", "));
    let help = "remove the copies that you do not want, so that the same programs are found everywhere";
    (!found.is_empty()).then(|| warning(what, help))
}
