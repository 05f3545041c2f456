//! Our own programs: whether those that work together have the same version, and where other copies are.

use super::{
    finding::{Finding, failed, ok, warning},
    scene::Scene,
};
use crate::{
    admin::{
        manager::Units,
        place::{PROGRAMS, beside, on_path},
    },
    platform::call::Call,
    wire::VERSION,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(5);
const RUNNING: &str = "running broker";

/// The version that `program --version` prints: the last word of `NAME VERSION`.
pub async fn version(program: &Path) -> Result<String, String> {
    let call = Call::new(program.to_string_lossy(), program, ["--version"], PATIENCE);
    let said = call.run().await.map_err(|error| error.to_string())?;
    let version = said.split_whitespace().last().filter(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    version.map(str::to_owned).ok_or_else(|| format!("{} does not say its version", program.display()))
}

pub fn same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// A copy of one of our programs.
struct Copy {
    role: &'static str,
    path: PathBuf,
    version: Result<String, String>,
}

impl Copy {
    async fn of(role: &'static str, path: PathBuf) -> Self {
        Self { role, version: version(&path).await, path }
    }

    fn fits(&self) -> bool {
        self.version.as_deref() == Ok(VERSION)
    }

    fn shown(&self) -> String {
        let shown = match &self.version {
            Ok(version) => format!("{} {version} ({})", self.role, self.path.display()),
            Err(why) => format!("{} unknown ({why})", self.role),
        };
        shown.trim_start().to_owned()
    }
}

/// A list of copies, for people.
fn list(copies: &[Copy]) -> String {
    copies.iter().map(Copy::shown).collect::<Vec<_>>().join(", ")
}

pub async fn check(scene: &Scene) -> Vec<Finding> {
    let copies = working(scene).await;
    let strangers: Vec<_> = copies.iter().filter(|copy| !copy.fits()).map(|copy| copy.role).collect();
    let finding = if strangers.is_empty() {
        ok(format!("{VERSION}: {}", copies.iter().map(|copy| copy.role).collect::<Vec<_>>().join(", ")))
    } else {
        failed(format!("the programs that work together are not of one version: {}", list(&copies)), help(scene, &strangers))
    };
    std::iter::once(finding).chain(others(&copies).await).collect()
}

/// The programs that work together: this one, those beside it, the broker, the service, the registered server.
async fn working(scene: &Scene) -> Vec<Copy> {
    let me = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("claude-peers"));
    let mut copies = vec![Copy { role: "this program", path: me, version: Ok(VERSION.to_owned()) }];
    if let Some(broker) = scene.broker() {
        let path = fs::read_link(format!("/proc/{}/exe", broker.pid)).unwrap_or_else(|_| format!("pid {}", broker.pid).into());
        copies.push(Copy { role: RUNNING, path, version: Ok(broker.version.clone()) });
    }
    let registered = scene.registrations.as_ref().ok().and_then(|all| all.own()).filter(|server| server.is_ours());
    let named = [
        ("broker of the service", scene.units.as_ref().and_then(Units::program)),
        ("registered MCP server", registered.and_then(|server| which::which(&server.command).ok())),
        ("broker beside this program", beside("claude-peersd")),
        ("MCP server beside this program", beside("claude-peers-mcp")),
    ];
    for (role, path) in named {
        if let Some(path) = path
            && !copies.iter().any(|copy| copy.role != RUNNING && same(&copy.path, &path))
        {
            copies.push(Copy::of(role, path).await);
        }
    }
    copies
}

fn help(scene: &Scene, strangers: &[&str]) -> String {
    if strangers == [RUNNING] {
        let is_service = scene.units.as_ref().is_some_and(|units| units.service.is_active());
        let restart =
            if is_service { "`systemctl --user restart claude-peers`" } else { "`claude-peers stop`, and start it again" };
        return format!("the broker was started before an upgrade, or from another place: {restart}");
    }
    "keep one installation: upgrade them together, or remove one (`sudo apt remove claude-peers` for the package, `cargo uninstall \
     claude-peers` for one of your own), then run `claude-peers setup` and restart the broker (`claude-peers stop`)"
        .to_owned()
}

/// Copies of other versions on `PATH`, which run only if somebody types their name.
async fn others(working: &[Copy]) -> Option<Finding> {
    let mut found: Vec<Copy> = Vec::new();
    for path in PROGRAMS.iter().flat_map(|name| on_path(name)) {
        if !working.iter().chain(&found).any(|copy| same(&copy.path, &path)) {
            found.push(Copy::of("", path).await);
        }
    }
    found.retain(|copy| !copy.fits());
    let what = format!("other copies are on PATH: {}; this one is {VERSION}", list(&found));
    (!found.is_empty())
        .then(|| warning(what, "remove the copies that you do not want, so that every shell finds the same programs"))
}
