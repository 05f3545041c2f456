//! What a client was told survives a power cut.
//!
//! The real broker runs under a recorder (`recorder.c`, preloaded) that writes down each change and each sync of its files, while
//! clients use its real sockets. Each answer that promises something is noted with the number of steps before it. Then the test
//! makes disks that a power cut could have left after any step, opens each with the broker's own code, and looks for everything
//! that was promised by then.
//!
//! The model of a disk is a journalling file system that does no more than it has to:
//!
//! - A sync of a file (`fsync`, `fdatasync`) makes its content and length durable, and not its name.
//! - A sync of a folder makes the names in it durable: what was created, renamed or removed there, and its new folders.
//! - Each write and truncation since the last sync of its file may be on disk or not, in any combination. A write may be torn:
//!   any of its sectors of 512 bytes may be missing. Bytes of a sector that the write does not cover stay as they are. Bytes that
//!   were never written are zero.
//! - Each change of names since the last sync of its folder may be on disk or not. Changes of the same name keep their order, and
//!   a rename happens whole or not at all.
//! - `-shm` is memory: it is missing, or holds noise.
//!
//! A check that cannot fail proves nothing, so the same tests leave out syncs, as if the broker had not called them, and expect
//! to find the loss.
//!
//! `CLAUDE_PEERS_TEST_POWER_DISKS` sets the number of disks in all. A failing test prints its seed and keeps the disk.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

mod check;
mod disk;
mod recorder;
#[path = "../suite/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the suite")]
mod support;
mod workload;

use disk::{Disk, Tree};
use recorder::Step;
use std::{collections::VecDeque, time::Instant};
use support::random::Random;
use workload::Recording;

/// Disks of all recordings together, unless the environment says otherwise.
const DISKS: usize = 2_000;
/// The recordings, which share the disks.
const RECORDINGS: usize = 7;
/// How many steps before the cut a failure shows.
const TRAIL: usize = 12;
/// One disk in so many is opened by a broker of its own.
const BROKERS: usize = 100;

/// Whether a step counts as if it had not been called.
type Forgotten = fn(&Disk, &Step) -> bool;

/// A disk that lacks what was promised.
#[derive(Debug)]
struct Bad {
    what: String,
    tree: Tree,
}

/// Cuts the recording again and again, and checks each disk: `check` gets the disk, its number, and how many steps came before the
/// cut. Returns the first bad disk.
fn cut(
    recording: &Recording,
    disks: usize,
    mut random: Random,
    forgotten: Forgotten,
    check: impl Fn(&Tree, usize, usize) -> Result<(), String>,
) -> Result<(), Bad> {
    let (mut disk, mut followed, mut trail) = (Disk::new(&recording.start), 0, VecDeque::new());
    for number in 0..disks {
        let span = |number: usize| number * (recording.steps.len() + 1) / disks;
        let (from, to) = (span(number), span(number + 1));
        let steps = from + random.below((to - from).max(1) as u64) as usize;
        for step in &recording.steps[followed..steps] {
            let is_forgotten = forgotten(&disk, step);
            if !is_forgotten {
                disk.follow(step);
            }
            trail.push_back(shown(&disk, step, is_forgotten));
            trail.drain(..trail.len().saturating_sub(TRAIL));
        }
        followed = steps;
        let tree = disk.cut(&mut random);
        if let Err(what) = check(&tree, number, steps) {
            let (trail, files) = (trail.make_contiguous().join("\n"), workload::sizes(&tree));
            let what = format!("disk {number}: {what}\ncut after step {steps}, the last ones:\n{trail}\nleft: {files:?}");
            return Err(Bad { what, tree });
        }
    }
    Ok(())
}

/// A step for people, without the data.
fn shown(disk: &Disk, step: &Step, is_forgotten: bool) -> String {
    let name = |inode: &u64| disk.name(*inode).unwrap_or("a removed file").to_owned();
    let words = match step {
        Step::Written { inode, at, bytes } => format!("write {} {at}+{}", name(inode), bytes.len()),
        Step::Truncated { inode, length } => format!("truncate {} to {length}", name(inode)),
        Step::Synced { inode } => format!("sync {}", name(inode)),
        other => format!("{other:?}"),
    };
    format!("  {words}{}", if is_forgotten { " (left out)" } else { "" })
}

/// Checks this recording's share of the disks.
fn survives(recording: &Recording) {
    let all = std::env::var("CLAUDE_PEERS_TEST_POWER_DISKS").map_or(DISKS, |disks| disks.parse().unwrap());
    let disks = all.div_ceil(RECORDINGS);
    let (random, began) = (Random::seeded(), Instant::now());
    let seed = random.seed();
    let check = |tree: &Tree, number, steps| check::check(recording, steps, tree, number % BROKERS == BROKERS / 2);
    let result = cut(recording, disks, random, |_, _| false, check);
    let (name, steps, promises) = (recording.name, recording.steps.len(), recording.promises.len());
    eprintln!("{name}: {disks} disks of {steps} steps, {promises} promises, seed {seed}, {:.1} s", began.elapsed().as_secs_f64());
    if let Err(Bad { what, tree }) = result {
        let kept = tempfile::Builder::new().prefix(&format!("power-{name}-")).disable_cleanup(true).tempdir().unwrap();
        check::put(&tree, kept.path());
        panic!("{name}: {what}\nits files: {}\nto repeat the choices: CLAUDE_PEERS_TEST_SEED={seed}", kept.path().display());
    }
}

#[test]
fn new_database_survives_a_power_cut() {
    survives(&workload::fresh());
}

#[test]
fn busy_broker_survives_a_power_cut() {
    survives(&workload::load());
}

#[test]
fn checkpoint_survives_a_power_cut() {
    survives(&workload::checkpoint());
}

#[test]
fn migration_survives_a_power_cut() {
    survives(&workload::migration());
}

#[test]
fn import_survives_a_power_cut() {
    survives(&workload::legacy());
}

#[test]
fn recovery_survives_a_second_power_cut() {
    survives(&workload::recovery());
}

#[test]
fn salvage_survives_a_power_cut() {
    survives(&workload::salvage());
}

/// Without these syncs a disk has this fault, and the check sees it.
fn is_caught(recording: &Recording, fault: &str, forgotten: Forgotten) {
    let random = Random::seeded();
    let seed = random.seed();
    let check = |tree: &Tree, _, steps| match check::check(recording, steps, tree, false) {
        Err(what) if what.contains(fault) => Err(what),
        _ => Ok(()),
    };
    let result = cut(recording, DISKS / 2, random, forgotten, check);
    let Err(bad) = result else { panic!("no disk shows the fault {fault:?}; CLAUDE_PEERS_TEST_SEED={seed}") };
    eprintln!("caught: {}", bad.what.lines().next().unwrap_or_default());
}

/// Whether the step syncs an open file whose name ends so.
fn syncs(disk: &Disk, step: &Step, end: &str) -> bool {
    matches!(step, Step::Synced { inode } if disk.name(*inode).is_some_and(|name| name.ends_with(end)))
}

#[test]
fn missing_sync_of_the_log_is_caught() {
    let recording = workload::load();
    is_caught(&recording, "broken: Accepted", |disk, step| syncs(disk, step, "-wal"));
    is_caught(&recording, "broken: Delivered", |disk, step| syncs(disk, step, "-wal"));
    is_caught(&workload::fresh(), "broken: Released", |disk, step| syncs(disk, step, "-wal"));
}

#[test]
fn missing_sync_of_the_database_is_caught() {
    // Only a checkpoint writes so many pages.
    let of_a_checkpoint: Forgotten =
        |disk, step| syncs(disk, step, "peers.db") && matches!(step, Step::Synced { inode } if disk.unsynced(*inode) > 100);
    is_caught(&workload::checkpoint(), "a sound database opens with", of_a_checkpoint);
}

#[test]
fn missing_syncs_of_a_salvage_are_caught() {
    let recording = workload::salvage();
    is_caught(&recording, "salvaged is in the way", |disk, step| syncs(disk, step, ".salvaging"));
    is_caught(&recording, "messages of the start are lost", |_, step| matches!(step, Step::FolderSynced { .. }));
}

#[test]
fn missing_sync_of_a_new_folder_is_caught() {
    let of_the_root: Forgotten = |_, step| matches!(step, Step::FolderSynced { name } if name.is_empty());
    is_caught(&workload::fresh(), "broken: Registered", of_the_root);
}
