//! Everything the machines need: Debian base systems, our packages and a real Claude Code.
//!
//! It is prepared once under `target/host` and kept between runs. If something is missing, the tests are skipped with the
//! reason, or fail with `CLAUDE_PEERS_HOST_TESTS=required`.

use crate::{
    claude,
    machine::{USERS, call},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The packages on top of Debian's minimal system.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,git,procps,iproute2,curl,ca-certificates";
/// Written last to mark a complete base system; its content changes whenever the preparation does.
const STAMP: &str = "prepared-3";

/// A release of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Debian 12, systemd 252.
    Bookworm,
    /// Debian 13, systemd 257.
    Trixie,
}

impl Release {
    /// Debian's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

/// The prepared files.
pub struct Prepared {
    place: PathBuf,
    /// This version's package.
    pub package: PathBuf,
    /// The same package with a lower version number, to upgrade from.
    pub previous: PathBuf,
    /// The package of the link, and Debian's of the NATS server that it needs.
    #[cfg(feature = "link")]
    pub link: [PathBuf; 2],
    /// The folder of a real Claude Code, if it is available.
    pub claude: Option<PathBuf>,
}

impl Prepared {
    /// Prepares everything.
    ///
    /// # Errors
    /// The missing requirement.
    pub fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can boot a machine".to_owned());
        }
        for program in ["bash", "unshare", "nsenter", "mount", "debootstrap", "cargo-deb", "apt-ftparchive", "gpg"] {
            if which(program).is_none() {
                return Err(format!("{program} is not installed"));
            }
        }
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target")).join("host");
        fs::create_dir_all(&place).map_err(|e| format!("{}: {e}", place.display()))?;
        for release in [Release::Bookworm, Release::Trixie] {
            base(&place, release)?;
        }
        let version = env!("CARGO_PKG_VERSION");
        let package = |version: &str| build(version, &[]).remove(0);
        #[cfg(feature = "link")]
        let link = [build(version, &["--link"]).remove(1), nats(&place)?];
        let (package, previous) = (package(version), package(&format!("{version}~previous")));
        let claude = claude::installed()?;
        if claude.is_none() {
            eprintln!("SKIPPED: tests with a real Claude Code; npm is not installed");
        }
        let claude = claude.and_then(|program| program.parent().map(Path::to_owned));
        Ok(Self {
            place,
            package,
            previous,
            #[cfg(feature = "link")]
            link,
            claude,
        })
    }

    /// The folder for machines.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The base system of a release, which is never written to.
    pub fn root(&self, release: Release) -> PathBuf {
        self.place.join(release.name())
    }

    /// Folders of this computer that each machine sees, and where it sees them.
    pub fn shared(&self) -> Vec<(&Path, &'static str)> {
        self.claude.iter().map(|claude| (claude.as_path(), "/opt/claude")).collect()
    }
}

/// Builds packages from the programs under test: the main one first.
fn build(version: &str, options: &[&str]) -> Vec<PathBuf> {
    let binaries = Path::new(env!("CARGO_BIN_EXE_claude-peersd")).parent().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/deb/build");
    let said = call(Command::new(script).arg("--bin-dir").arg(binaries).args(["--version", version]).args(options));
    let built = said.split_whitespace().map(|word| word.trim_end_matches(":")).filter(|word| word.ends_with(".deb"));
    let built: Vec<_> = built.map(PathBuf::from).collect();
    assert!(!built.is_empty(), "{script} names no package: {said}");
    built
}

/// Debian's package of the NATS server, downloaded unless it was before.
#[cfg(feature = "link")]
fn nats(place: &Path) -> Result<PathBuf, String> {
    let folder = place.join("nats");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let find = || {
        fs::read_dir(&folder)
            .ok()?
            .find_map(|entry| Some(entry.ok()?.path()).filter(|path| path.extension().is_some_and(|end| end == "deb")))
    };
    if find().is_none() {
        call(
            Command::new("apt-get")
                .args(["download", "-qq", "-o", "APT::Sandbox::User=root", "nats-server"])
                .current_dir(&folder),
        );
    }
    find().ok_or_else(|| format!("apt-get has put no package into {}", folder.display()))
}

/// Creates a base system unless it exists.
fn base(place: &Path, release: Release) -> Result<(), String> {
    let root = place.join(release.name());
    let stamp = place.join(format!("{}.{STAMP}", release.name()));
    if stamp.exists() {
        return Ok(());
    }
    drop(fs::remove_dir_all(&root));
    eprintln!("preparing Debian {} in {} (about a minute)", release.name(), root.display());
    let mirror = mirror().ok_or("no Debian mirror is named in /etc/apt")?;
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", &format!("--include={PACKAGES}"), release.name()]).arg(&root).arg(mirror);
    call(&mut command);
    let write = |path: &str, text: &str, mode: u32| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for user in USERS {
        call(Command::new("chroot").arg(&root).args(["useradd", "--create-home", "--shell", "/bin/bash", user]));
        write(&format!("var/lib/systemd/linger/{user}"), "", 0o644);
    }
    // The environment of a login.
    let login = "#!/bin/sh\n\
        uid=$(id -u)\n\
        export HOME=/home/$(id -un) USER=$(id -un) LOGNAME=$(id -un) XDG_RUNTIME_DIR=/run/user/$uid\n\
        export DBUS_SESSION_BUS_ADDRESS=unix:path=$XDG_RUNTIME_DIR/bus\n\
        cd && exec \"$@\"\n";
    write("usr/local/bin/as-at-login", login, 0o755);
    // Users can read their own journals, and journals survive a reboot.
    fs::create_dir_all(root.join("var/log/journal")).unwrap();
    write("etc/systemd/journald.conf.d/test.conf", "[Journal]\nStorage=persistent\nRateLimitBurst=0\n", 0o644);
    // These units do not work in a container.
    for unit in ["systemd-modules-load.service", "systemd-udevd.service", "apt-daily.timer", "apt-daily-upgrade.timer"] {
        drop(Command::new("chroot").arg(&root).args(["systemctl", "mask", unit]).output());
    }
    fs::write(stamp, "").map_err(|e| e.to_string())
}

/// The package mirror of this computer.
fn mirror() -> Option<String> {
    let deb822 = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    let listed = deb822.lines().find_map(|line| Some(line.strip_prefix("URIs:")?.trim().to_owned()));
    let classic = || {
        let list = fs::read_to_string("/etc/apt/sources.list").ok()?;
        let line = list.lines().find(|line| line.starts_with("deb "))?;
        line.split_whitespace().find(|word| word.contains("://")).map(str::to_owned)
    };
    listed.or_else(classic)
}

fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.exists())
}
