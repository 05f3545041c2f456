//! The programs change together or not at all, by one update at a time.

use super::{
    Installed, install, release_of,
    server::{Entry, NEWER, PROGRAMS, Server, key, programs},
};
use rustix::fs::FlockOperation;
use std::{
    fs::{self, File},
    os::unix::fs::symlink,
};

#[test]
fn failure_half_way_restores_all_programs() {
    // The last program in line removes itself when it is tried out.
    let gone = format!("#!/bin/sh\necho claude-peers {NEWER}\nrm \"$0\"\n");
    let mut entries = programs(NEWER);
    entries.iter_mut().filter(|Entry(name, ..)| name == "claude-peers").for_each(|entry| entry.2 = gone.clone().into_bytes());
    let (server, installed) = (release_of(&entries), Installed::new());
    installed.refuses(&server, "replacing");
    installed.refuses(&server, "nothing was changed");
    fs::remove_file(installed.bin().join("claude-peersd")).unwrap();
    installed.refuses(&server, "replacing");
}

#[test]
fn missing_program_is_added_and_leftovers_removed() {
    let (installed, server) = (Installed::new(), Server::with_release(NEWER, &key(1)));
    fs::remove_file(installed.bin().join("claude-peersd")).unwrap();
    // Left by an update that was killed.
    fs::create_dir_all(installed.bin().join(".claude-peers-update-Xy12/new")).unwrap();
    assert_eq!(installed.update(&server, &[]).code, 0);
    let mut names: Vec<_> = fs::read_dir(installed.bin()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let mut expected = PROGRAMS;
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
fn second_update_or_a_link_is_refused() {
    let (installed, server) = (Installed::new(), Server::with_release(NEWER, &key(1)));
    let lock = File::open(installed.bin()).unwrap();
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    installed.refuses(&server, "another update may be running");
    drop(lock);
    let [broker, elsewhere] = ["bin/claude-peersd", "elsewhere"].map(|name| installed.place.path().join(name));
    install(&broker, &elsewhere);
    fs::remove_file(&broker).unwrap();
    symlink(&elsewhere, &broker).unwrap();
    installed.refuses(&server, "claude-peersd is not a plain file");
}
