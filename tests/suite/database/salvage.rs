//! Opening and salvage survive a kill at every step, and a full disk.

use super::{PAGE, UNLIMITED, count, files, noise, overwrite, put_back, send_many, use_all};
use crate::support::{Broker, PATIENCE, events::Peer, random::Random};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::{fs, hint, os::unix::process::ExitStatusExt, path::Path, process::Stdio, time::Instant};

/// Spins for a random time, up to about `most` microseconds.
fn hesitate(random: &mut Random, most: u64) {
    let (start, time) = (Instant::now(), u128::from(random.below(most + 1)));
    while start.elapsed().as_micros() < time {
        hint::spin_loop();
    }
}

fn has(folder: &Path, part: &str) -> bool {
    let mut entries = fs::read_dir(folder).unwrap();
    entries.any(|entry| entry.unwrap().file_name().to_string_lossy().contains(part))
}

#[test]
fn broker_killed_while_creating_its_database_starts_again() {
    let mut random = Random::seeded();
    for round in 0..40 {
        let mut broker = Broker::prepared(&[]);
        let mut child = broker.command().spawn().unwrap();
        let start = Instant::now();
        while !broker.database().exists() {
            assert!(start.elapsed() < PATIENCE, "no database appears");
        }
        hesitate(&mut random, 6_000);
        child.kill().unwrap();
        child.wait().unwrap();
        broker.launch();
        assert_eq!(use_all(&broker.http()).unwrap(), None, "round {round}");
        assert_eq!(broker.http().get("/v1/status").json()["notices"], json!([]));
    }
}

#[test]
fn hot_rollback_journal_is_rolled_back() {
    let mut broker = Broker::with(&UNLIMITED);
    let peer = Peer::register(&broker.http(), "reader", json!({}));
    send_many(&broker, &peer, 20);
    assert!(broker.terminate().success());
    let database = Connection::open(broker.database()).unwrap();
    database
        .execute_batch("PRAGMA journal_mode = delete; PRAGMA cache_size = 2; BEGIN; UPDATE message SET text = 'half of it'")
        .unwrap();
    let crashed = files(broker.folder());
    assert!(crashed.iter().any(|(name, bytes)| name.ends_with("-journal") && bytes[..8] != [0; 8]), "the journal is hot");
    drop(database);
    put_back(broker.folder(), &crashed);

    let output = broker.command().arg("--check-database").stdout(Stdio::piped()).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["state"], "ok", "a start puts it right: {report}");
    assert!(report["problems"].to_string().contains("undone"), "{report}");
    assert!(files(broker.folder()) == crashed, "the check changes nothing");
    broker.launch();
    assert_eq!(broker.count("SELECT count(*) FROM message WHERE text LIKE 'number %'"), 20);
    assert_eq!(use_all(&broker.http()).unwrap(), None);
}

/// A broker with a damaged database, its files, and the number of messages that an undisturbed salvage keeps.
fn damaged(messages: usize) -> (Broker, Vec<(String, Vec<u8>)>, i64) {
    let mut broker = Broker::with(&UNLIMITED);
    let peer = Peer::register(&broker.http(), "reader", json!({}));
    send_many(&broker, &peer, messages);
    broker.kill(); // the log holds the newest messages
    let mut random = Random::seeded();
    for part in [3, 7] {
        let pages = fs::metadata(broker.database()).unwrap().len() / PAGE;
        overwrite(&broker.database(), pages * part / 10 * PAGE, &noise(&mut random, PAGE));
    }
    let before = files(broker.folder());
    broker.launch();
    let kept = broker.count("SELECT count(*) FROM message");
    broker.kill();
    (broker, before, kept)
}

#[test]
fn salvage_keeps_all_that_can_be_read() {
    let (mut broker, before, kept) = damaged(1_200);
    assert!((1_180..1_200).contains(&kept), "two pages cost a few messages, not all between them: {kept}");
    broker.launch();
    put_back(broker.folder(), &before);
    broker.kill();
    broker.launch();
    let notices = broker.http().get("/v1/status").json()["notices"].to_string();
    let lost = format!("{} of table message could not be read", 1_200 - kept);
    for said in [&notices, &broker.log()] {
        assert!(said.contains(&format!("{kept} of table message")) && said.contains(&lost), "{lost}: {said}");
    }
    assert!(has(broker.folder(), "peers.db.damaged-20") && !has(broker.folder(), "salvag"));
}

#[test]
fn killed_salvage_loses_nothing() {
    let (mut broker, before, kept) = damaged(1_200);
    let mut random = Random::seeded();
    for round in 0..24 {
        put_back(broker.folder(), &before);
        let mut child = broker.command().spawn().unwrap();
        // The broker is killed while it copies, just after the copy, or while it replaces the database.
        let sign = ["peers.db.salvag", "peers.db.salvaged", "peers.db.damaged-"][round % 3];
        let start = Instant::now();
        while !has(broker.folder(), sign) && !has(broker.folder(), "peers.db.damaged-") {
            assert!(start.elapsed() < PATIENCE, "no salvage begins");
        }
        hesitate(&mut random, [20_000, 300, 1_000][round % 3]);
        child.kill().unwrap();
        child.wait().unwrap();
        broker.launch();
        assert_eq!(broker.count("SELECT count(*) FROM message"), kept, "round {round}, {sign}");
        let names: Vec<_> = files(broker.folder()).into_iter().map(|(name, _)| name).collect();
        let aside = names.iter().filter(|name| name.contains(".damaged-") && name.ends_with('Z')).count();
        assert_eq!(aside, 1, "round {round}, {sign}: {names:?}");
        assert!(broker.log().contains("could not be read"), "{}", broker.log());
        assert_eq!(use_all(&broker.http()).unwrap(), None, "round {round}");
        broker.kill();
    }
}

#[test]
fn full_disk_stops_a_salvage_and_loses_nothing() {
    let (mut broker, before, kept) = damaged(1_200);
    for blocks in [100, 1_000, 2_000] {
        put_back(broker.folder(), &before);
        // The kernel refuses writes beyond this many blocks of a file.
        let mut child = broker.command_after(&format!("trap '' XFSZ; ulimit -f {blocks}")).spawn().unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(1), None), "{blocks}: {}", broker.log());
        assert!(broker.log().contains("is damaged") && broker.log().contains("salvag"), "{}", broker.log());
        let damaged = |files: &[(String, Vec<u8>)]| {
            files.iter().filter(|(name, _)| name == "peers.db" || name == "peers.db-wal").cloned().collect::<Vec<_>>()
        };
        assert!(damaged(&files(broker.folder())) == damaged(&before), "{blocks}: the damaged database stays");
        broker.launch();
        assert_eq!(broker.count("SELECT count(*) FROM message"), kept, "{blocks}: the next start has room");
        broker.kill();
    }
}

#[test]
fn log_without_its_database_is_kept() {
    for left in [None, Some(""), Some("S")] {
        let mut broker = Broker::with(&UNLIMITED);
        let peer = Peer::register(&broker.http(), "reader", json!({}));
        send_many(&broker, &peer, 5);
        broker.kill();
        let log = fs::read(broker.folder().join("peers.db-wal")).unwrap();
        fs::remove_file(broker.database()).unwrap();
        if let Some(left) = left {
            fs::write(broker.database(), left).unwrap();
        }
        broker.launch();
        assert_eq!(count(&broker.database(), "SELECT count(*) FROM message"), 0);
        let kept = files(broker.folder()).into_iter().find(|(name, _)| name.contains(".damaged-") && name.ends_with("-wal"));
        assert!(kept.is_some_and(|(_, bytes)| bytes == log), "it may hold messages; left of the database: {left:?}");
        let notices = broker.http().get("/v1/status").json()["notices"].to_string();
        assert!(notices.contains("without its database"), "{notices}");
    }
}
