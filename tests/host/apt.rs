//! The apt repository: people install and upgrade by name, and apt refuses what our key has not signed.

use crate::{
    Test,
    machine::{Machine, WEB, call},
    prepare::{Prepared, Release},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

pub const TESTS: &[(&str, Test)] = &[
    ("apt::every_file_names_the_same_address", every_file_names_the_same_address),
    ("apt::repository_keeps_every_version_of_both_architectures", repository_keeps_every_version_of_both_architectures),
    ("apt::package_is_installed_and_upgraded_by_name", package_is_installed_and_upgraded_by_name),
    ("apt::other_key_or_changed_package_is_refused", other_key_or_changed_package_is_refused),
];

/// The same folder for a machine without a web server.
pub const AS_FILES: &str = "file:///srv/www/apt";
/// Makes a machine forget Debian's own repository, which it cannot reach.
pub const NO_OTHER: &str = "rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*";
/// Where the manual says that the repository is.
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

    /// Adds packages to the repository in `folder`.
    fn add(&self, url: &str, key: &str, folder: &Path, packages: &[&Path]) -> Output {
        let mut command = self.command(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/apt/publish"));
        command.args(["--key", key, "--url", url]).arg(folder).args(packages).output().unwrap()
    }

    /// Publishes a package in `/srv/www/apt` of a machine, which finds the folder at `url`.
    pub fn publish(&self, url: &str, key: &str, machine: &Machine, package: &Path) {
        let output = self.add(url, key, &machine.path("/srv/www/apt"), &[package]);
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        drop(self.command("gpgconf").args(["--kill", "all"]).output());
    }
}

fn every_file_names_the_same_address(_: &Prepared) {
    for file in [
        "docs/manual.md",
        ".github/workflows/release.yml",
        "packaging/oci/claude-peers/install.sh",
        "packaging/oci/claude-peers/devcontainer-feature.json",
    ] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(text.contains(ADDRESS), "{file}");
    }
}

/// An empty package.
fn package(folder: &Path, name: &str, version: &str, architecture: &str, about: &str) -> PathBuf {
    let (tree, file) = (folder.join("tree/DEBIAN"), folder.join(format!("{name}-{version}-{architecture}-{about}.deb")));
    fs::create_dir_all(&tree).unwrap();
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: test <test@example.org>\nDescription: {about}\n"
    );
    fs::write(tree.join("control"), control).unwrap();
    call(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(folder.join("tree")).arg(&file));
    file
}

fn repository_keeps_every_version_of_both_architectures(_: &Prepared) {
    let (keys, place) = (Keys::new(), tempfile::tempdir().unwrap());
    let repository = place.path().join("apt");
    let add = |packages: &[&Path]| keys.add("https://apt.example.org", "ours", &repository, packages);
    for version in ["1.0-1", "1.1-1"] {
        let both = ["amd64", "arm64"].map(|architecture| package(place.path(), "claude-peers", version, architecture, "ours"));
        let added = add(&[&both[0], &both[1]]);
        assert!(added.status.success(), "{added:?}");
    }
    let read = |path: &str| fs::read_to_string(repository.join(path)).unwrap();
    let values = |text: &str, field: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix(field)?.strip_prefix(": ")).map(str::to_owned).collect()
    };
    for architecture in ["amd64", "arm64"] {
        let index = read(&format!("dists/stable/main/binary-{architecture}/Packages"));
        assert_eq!(
            (values(&index, "Version"), values(&index, "Architecture")),
            (vec!["1.0-1".into(), "1.1-1".into()], vec![architecture.into(); 2])
        );
    }
    let release = read("dists/stable/InRelease");
    for (field, value) in
        [("Origin", "claude-peers"), ("Suite", "stable"), ("Architectures", "amd64 arm64"), ("Acquire-By-Hash", "yes")]
    {
        assert_eq!(values(&release, field), [value]);
    }
    assert_eq!(values(&read("claude-peers.sources"), "URIs"), ["https://apt.example.org"]);

    // Neither another build of a version, nor another package, nor an unknown key changes the repository.
    let other = package(place.path(), "claude-peers", "1.1-1", "amd64", "other");
    let foreign = package(place.path(), "else", "1.1-1", "amd64", "foreign");
    for (refused, words) in [
        (add(&[&other]), "is another build of version 1.1-1"),
        (add(&[&foreign]), "holds else, not claude-peers"),
        (keys.add("https://apt.example.org", "nobody", &repository, &[&foreign]), "gpg has no secret key nobody"),
    ] {
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(words), "{said}");
    }
    assert_eq!(read("dists/stable/InRelease"), release);
}

/// The commands of the manual that install the package, for the repository at `url`.
fn commands(url: &str) -> [String; 3] {
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/manual.md")).unwrap();
    let lines = manual.lines().skip_while(|line| !line.contains(ADDRESS)).take(3);
    let here = |line: &str| line.replace(ADDRESS, url).replace("sudo ", "").replace("install", "install --yes");
    lines.map(here).collect::<Vec<_>>().try_into().unwrap()
}

fn version(machine: &Machine) -> String {
    machine.root("dpkg-query -W -f '${Version}' claude-peers").out
}

fn package_is_installed_and_upgraded_by_name(prepared: &Prepared) {
    let keys = Keys::new();
    for release in [Release::Bookworm, Release::Trixie] {
        let machine = Machine::boot(prepared, release);
        machine.root(NO_OTHER).ok();
        machine.serve();
        let url = format!("{WEB}/apt");
        keys.publish(&url, "ours", &machine, &prepared.previous);
        for command in commands(&url) {
            machine.root(&command).ok();
        }
        let previous = version(&machine);
        assert!(previous.ends_with("~previous"), "{previous}");
        assert!(machine.ada("claude-peers status").ok().contains("running"));
        let before = machine.property("ada", "claude-peers.service", "MainPID");

        keys.publish(&url, "ours", &machine, &prepared.package);
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
        let machine = Machine::switched_off(prepared, release);
        let publish = |key| keys.publish(AS_FILES, key, &machine, &prepared.package);
        let [add, update, install] = commands(AS_FILES);
        publish("ours");
        machine.in_container(&format!("{NO_OTHER}; {add}")).ok();

        publish("other");
        let refused = machine.in_container(&update);
        assert!(refused.code != 0 && refused.err.contains("is not signed"), "{refused:?}");
        assert_ne!(machine.in_container(&install).code, 0);

        publish("ours");
        machine.in_container(&update).ok();
        let package = served(&machine);
        let (good, mut bad) = (fs::read(&package).unwrap(), fs::read(&package).unwrap());
        *bad.last_mut().unwrap() ^= 1;
        fs::write(&package, bad).unwrap();
        let refused = machine.in_container(&format!("{install} --download-only"));
        assert!(refused.code != 0 && refused.err.contains("Hash Sum mismatch"), "{refused:?}");
        fs::write(&package, good).unwrap();
        machine.in_container(&format!("{install} --download-only")).ok();
    }
}

/// The only package in a machine's repository.
fn served(machine: &Machine) -> PathBuf {
    let pool = machine.path("/srv/www/apt/pool/main/c/claude-peers");
    let files: Vec<_> = fs::read_dir(pool).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [package] = files.as_slice() else { panic!("{files:?}") };
    package.clone()
}
