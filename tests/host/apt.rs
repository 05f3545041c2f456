//! The apt repository: people install and upgrade by name, and apt refuses what our key has not signed.

use crate::{
    Test,
    machine::{Machine, WEB, call},
    prepare::{Prepared, Release},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

pub const TESTS: &[(&str, Test)] = &[
    ("apt::package_is_installed_and_upgraded_by_name", package_is_installed_and_upgraded_by_name),
    ("apt::other_key_or_changed_package_is_refused", other_key_or_changed_package_is_refused),
];

/// Where the README says that the repository is.
const ADDRESS: &str = "https://claude-peers.github.io/claude-peers/apt";

/// Keys of a GnuPG of its own.
pub struct Keys(tempfile::TempDir);

impl Keys {
    /// Two keys, `ours` and `other`.
    pub fn new() -> Self {
        let keys = Self(tempfile::tempdir().unwrap());
        for name in ["ours", "other"] {
            let make = ["--quick-generate-key", name, "ed25519", "sign", "never"];
            call(keys.command("gpg").args(["--batch", "--quiet", "--passphrase", ""]).args(make));
        }
        keys
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("GNUPGHOME", self.0.path());
        command
    }

    /// Publishes a package on a machine's web server, signed with this key.
    fn publish(&self, key: &str, machine: &Machine, package: &Path) {
        self.publish_at(&format!("{WEB}/apt"), key, machine, package);
    }

    /// The same for machines that find the folder at `url`.
    pub fn publish_at(&self, url: &str, key: &str, machine: &Machine, package: &Path) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/apt/publish");
        let mut command = self.command(script);
        call(command.args(["--key", key, "--url", url]).arg(machine.path("/srv/www/apt")).arg(package));
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        drop(self.command("gpgconf").args(["--kill", "all"]).output());
    }
}

/// A machine that knows no other repository and has a web server.
fn boot(prepared: &Prepared, release: Release) -> Machine {
    let machine = Machine::boot(prepared, release);
    machine.root("rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*").ok();
    machine.serve();
    machine
}

/// The commands of the README that install the package, for this machine's repository.
fn commands() -> [String; 3] {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let lines = readme.lines().skip_while(|line| !line.contains(ADDRESS)).take(3);
    let here = |line: &str| line.replace(ADDRESS, &format!("{WEB}/apt")).replace("sudo ", "").replace("install", "install --yes");
    lines.map(here).collect::<Vec<_>>().try_into().unwrap()
}

fn version(machine: &Machine) -> String {
    machine.root("dpkg-query -W -f '${Version}' claude-peers").out
}

fn package_is_installed_and_upgraded_by_name(prepared: &Prepared) {
    let keys = Keys::new();
    for release in [Release::Bookworm, Release::Trixie] {
        let machine = boot(prepared, release);
        keys.publish("ours", &machine, &prepared.previous);
        for command in commands() {
            machine.root(&command).ok();
        }
        let previous = version(&machine);
        assert!(previous.ends_with("~previous"), "{previous}");
        assert!(machine.ada("claude-peers status").ok().contains("running"));
        let before = machine.property("ada", "claude-peers.service", "MainPID");

        keys.publish("ours", &machine, &prepared.package);
        machine.root("apt update && apt upgrade --yes").ok();
        assert_eq!(version(&machine), env!("CARGO_PKG_VERSION"));
        machine.ada("claude-peers status").ok();
        assert_ne!(machine.property("ada", "claude-peers.service", "MainPID"), before, "the new broker serves");

        let back = machine.root(&format!("apt-get install --simulate --yes --allow-downgrades claude-peers={previous}")).ok();
        assert!(back.contains(&format!("Inst claude-peers [{}] ({previous}", env!("CARGO_PKG_VERSION"))), "{back}");
    }
}

fn other_key_or_changed_package_is_refused(prepared: &Prepared) {
    let keys = Keys::new();
    for release in [Release::Bookworm, Release::Trixie] {
        let machine = boot(prepared, release);
        keys.publish("ours", &machine, &prepared.package);
        let [add, update, install] = commands();
        machine.root(&add).ok();

        keys.publish("other", &machine, &prepared.package);
        let refused = machine.root(&update);
        assert!(refused.code != 0 && refused.err.contains("is not signed"), "{refused:?}");
        assert_ne!(machine.root(&install).code, 0);

        keys.publish("ours", &machine, &prepared.package);
        machine.root(&update).ok();
        let package = served(&machine);
        let (good, mut bad) = (fs::read(&package).unwrap(), fs::read(&package).unwrap());
        *bad.last_mut().unwrap() ^= 1;
        fs::write(&package, bad).unwrap();
        let refused = machine.root(&install);
        assert!(refused.code != 0 && refused.err.contains("Hash Sum mismatch"), "{refused:?}");
        assert_eq!(version(&machine), "", "nothing is installed");
        fs::write(&package, good).unwrap();
        machine.root(&format!("{install} --download-only")).ok();
    }
}

/// The only package in a machine's repository.
fn served(machine: &Machine) -> PathBuf {
    let pool = machine.path("/srv/www/apt/pool/main/c/claude-peers");
    let files: Vec<_> = fs::read_dir(pool).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [package] = files.as_slice() else { panic!("{files:?}") };
    package.clone()
}
