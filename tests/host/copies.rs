//! Copies of the three programs in a folder of a user's own, as `cargo install` or an unpacked release puts them there.

use crate::machine::Machine;
use std::{fs, path::Path, process::Command};

/// The version of everything that was built.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The programs as they were built.
const BUILT: [(&str, &str); 3] = [
    ("claude-peers", env!("CARGO_BIN_EXE_claude-peers")),
    ("claude-peersd", env!("CARGO_BIN_EXE_claude-peersd")),
    ("claude-peers-mcp", env!("CARGO_BIN_EXE_claude-peers-mcp")),
];

/// Another version, written with as many bytes as this one.
pub fn version_of(digit: char) -> String {
    VERSION.chars().map(|c| if c.is_ascii_digit() { digit } else { c }).collect()
}

/// The programs, which say and act as if they were of this version: every place that holds ours is written over.
pub fn programs(version: &str) -> Vec<(&'static str, Vec<u8>)> {
    assert_eq!(version.len(), VERSION.len(), "a version of another length does not fit");
    let of_version = |(name, built): (&'static str, &str)| {
        let mut bytes = fs::read(built).unwrap();
        if version != VERSION {
            let mut at = 0;
            while let Some(found) = bytes[at..].windows(VERSION.len()).position(|window| window == VERSION.as_bytes()) {
                at += found;
                bytes[at..at + version.len()].copy_from_slice(version.as_bytes());
            }
        }
        (name, bytes)
    };
    BUILT.map(of_version).into()
}

/// Puts the programs in a folder of the machine, which they share with nobody: with the owner and the mode of programs there.
pub fn put(machine: &Machine, owner: &str, folder: &str, version: &str) {
    machine.run(owner, &format!("mkdir -p {folder}")).ok();
    for (name, bytes) in programs(version) {
        let path = format!("{folder}/{name}");
        write(&machine.path(&path), &bytes);
        machine.root(&format!("chown {owner}: {path} && chmod 755 {path}")).ok();
    }
}

/// Replaces a file without writing into one that runs.
fn write(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    // What a child of another test has inherited, open for writing, cannot be run: another process makes the copy that counts.
    assert!(Command::new("cp").arg(&new).arg(path.with_extension("copy")).status().unwrap().success());
    fs::rename(path.with_extension("copy"), path).unwrap();
    fs::remove_file(new).unwrap();
}
