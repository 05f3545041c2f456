//! Builds the recorder (`recorder.c`), runs a command under it and reads its log.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

/// What the broker did to its files. A file is known by its inode, a name by its path below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Opened { inode: u64, name: String },
    Created { inode: u64, name: String },
    Written { inode: u64, at: usize, bytes: Vec<u8> },
    Truncated { inode: u64, length: usize },
    Synced { inode: u64 },
    FolderSynced { name: String },
    Renamed { from: String, to: String },
    Unlinked { name: String },
    FolderMade { name: String },
}

/// The steps so far, and the length of the log after each of them.
#[derive(Debug, Default)]
pub struct Log {
    pub steps: Vec<Step>,
    pub ends: Vec<u64>,
}

/// The recorder as a library that is preloaded.
static LIBRARY: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("recorder.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/recorder.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-lpthread").status();
    assert!(built.unwrap().success(), "cc builds the recorder");
    (folder, library)
});

/// Makes `command` record what it does to the folder `data` in `root`.
pub fn watch(command: &mut Command, root: &Path, log: &Path) {
    command.env("LD_PRELOAD", &LIBRARY.1).env("RECORDER_ROOT", root).env("RECORDER_LOG", log);
}

/// Reads a log.
pub fn read(log: &Path) -> Log {
    let bytes = fs::read(log).unwrap_or_default();
    let (mut read, mut rest) = (Log::default(), &bytes[..]);
    while !rest.is_empty() {
        let mut number = || {
            let (head, tail) = rest.split_first_chunk().expect("a whole record");
            rest = tail;
            u64::from_le_bytes(*head)
        };
        let [kind, inode, at, first, second] = [(); 5].map(|()| number());
        let (first, tail) = rest.split_at(first as usize);
        let (second, tail) = tail.split_at(second as usize);
        rest = tail;
        read.steps.push(step(kind, inode, at as usize, first, second));
        read.ends.push((bytes.len() - rest.len()) as u64);
    }
    read
}

fn step(kind: u64, inode: u64, at: usize, first: &[u8], second: &[u8]) -> Step {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    match kind {
        1 => Step::Opened { inode, name: text(first) },
        2 => Step::Created { inode, name: text(first) },
        3 => Step::Written { inode, at, bytes: first.to_vec() },
        4 => Step::Truncated { inode, length: at },
        5 => Step::Synced { inode },
        6 => Step::FolderSynced { name: text(first) },
        7 => Step::Renamed { from: text(first), to: text(second) },
        8 => Step::Unlinked { name: text(first) },
        9 => Step::FolderMade { name: text(first) },
        other => panic!("no kind of record: {other}"),
    }
}
