//! Copies of the three programs in a user's own folder, as from `cargo install` or an unpacked release.

use crate::machine::Machine;
use std::{fs, path::Path, process::Command};

/// The version under test.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The built programs.
const BUILT: [(&str, &str); 3] = [
    ("claude-peers", env!("CARGO_BIN_EXE_claude-peers")),
    ("claude-peersd", env!("CARGO_BIN_EXE_claude-peersd")),
    ("claude-peers-mcp", env!("CARGO_BIN_EXE_claude-peers-mcp")),
];

/// Another version number of the same length.
pub fn version_of(digit: char) -> String {
    VERSION.chars().map(|c| if c.is_ascii_digit() { digit } else { c }).collect()
}

/// The programs patched to report another version: every occurrence of ours is overwritten.
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

/// Installs the programs into a folder of the machine of their own, with the usual owner and mode.
pub fn put(machine: &Machine, owner: &str, folder: &str, version: &str) {
    machine.run(owner, &format!("mkdir -p {folder}")).ok();
    for (name, bytes) in programs(version) {
        let path = format!("{folder}/{name}");
        write(&machine.path(&path), &bytes);
        machine.root(&format!("chown {owner}: {path} && chmod 755 {path}")).ok();
    }
}

/// Replaces a file without writing into a running program.
fn write(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    // A child of another test may have inherited the file open for writing, and then it cannot run. So another process makes
    // the final copy.
    assert!(Command::new("cp").arg(&new).arg(path.with_extension("copy")).status().unwrap().success());
    fs::rename(path.with_extension("copy"), path).unwrap();
    fs::remove_file(new).unwrap();
}
