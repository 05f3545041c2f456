//! Changes to the database files of a running broker, and to the files beside them.

use super::{UNLIMITED, send_many, use_all};
use crate::support::{Broker, events::Peer, eventually, folder};
use serde_json::json;
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

fn beside(database: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", database.display()))
}

fn cut(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

type Tamper = fn(&Path);

const TAMPERS: [(&str, Tamper); 8] = [
    ("removed", |database| fs::remove_file(database).unwrap()),
    ("moved", |database| fs::rename(database, beside(database, ".old")).unwrap()),
    ("replaced by a copy", |database| {
        fs::copy(database, beside(database, ".copy")).unwrap();
        fs::rename(beside(database, ".copy"), database).unwrap();
    }),
    ("emptied", |database| cut(database, 0)),
    ("cut in half", |database| cut(database, fs::metadata(database).unwrap().len() / 8192 * 4096)),
    ("without its log", |database| fs::remove_file(beside(database, "-wal")).unwrap()),
    ("with its log emptied", |database| cut(&beside(database, "-wal"), 0)),
    ("gone with its folder", |database| {
        let folder = database.parent().unwrap();
        fs::rename(folder, beside(folder, ".gone")).unwrap();
    }),
];

#[test]
fn removed_database_accepts_nothing() {
    let mut told = 0;
    for (what, tamper) in TAMPERS {
        let mut broker = Broker::prepared(&UNLIMITED);
        let database = broker.folder().join("home/peers.db");
        let command = |broker: &Broker| {
            let mut command = broker.command();
            command.env("CLAUDE_PEERS_DB", &database);
            command
        };
        broker.launch_as(command(&broker));
        let peer = Peer::register(&broker.http(), "reader", json!({}));
        send_many(&broker, &peer, 20);
        tamper(&database);
        let mut codes = Vec::new();
        for number in 0..40 {
            let message = json!({"to": peer.id, "text": format!("after {number}")});
            match broker.http().try_post("/v1/send", &message) {
                Ok(answer) => codes.push((answer.status, answer.code())),
                Err(_) => break, // the broker has exited
            }
        }
        // The broker's maintenance may notice the change first: then the broker is stopping or has exited. A read that meets an
        // emptied log sees damage.
        let expected = ["database_moved", "stopping", "internal"];
        assert!(codes.iter().all(|(status, code)| *status >= 500 && expected.contains(&code.as_str())), "{what}: {codes:?}");
        told += codes.iter().filter(|(_, code)| code == "database_moved").count();
        assert_eq!(broker.wait().code(), Some(1), "{what}: a service manager starts it again");
        let reasons = ["nothing more is accepted", "it is repaired before the next start"];
        assert!(reasons.iter().any(|reason| broker.log().matches(reason).count() == 1), "{what}: {}", broker.log());

        broker.launch_as(command(&broker));
        assert_eq!(use_all(&broker.http()).unwrap(), None, "{what}");
        if what == "without its log" {
            let kept = rusqlite::Connection::open(&database).unwrap();
            let kept: i64 =
                kept.query_row("SELECT count(*) FROM message WHERE text LIKE 'number %'", [], |row| row.get(0)).unwrap();
            assert_eq!(kept, 20, "the broker still had it open");
        }
    }
    assert!(told > 0, "no sender heard why");
}

#[test]
fn links_to_one_database_admit_one_broker() {
    let broker = Broker::start();
    let place = folder();
    let links = [place.path().join("symbolic"), place.path().join("hard"), place.path().join("twice")];
    symlink(broker.database(), &links[0]).unwrap();
    fs::hard_link(broker.database(), &links[1]).unwrap();
    symlink(&links[0], &links[2]).unwrap();
    for link in links {
        let second = Broker::prepared(&[("CLAUDE_PEERS_DB", link.to_str().unwrap())]);
        assert_eq!(second.refused(), 3, "{}", link.display());
        assert!(second.log().contains(&format!("(process {})", broker.pid())), "{}", second.log());
    }
}

#[test]
fn database_behind_a_link_is_one_database() {
    let mut broker = Broker::prepared(&UNLIMITED);
    let place = folder();
    let real = place.path().join("real.db");
    symlink(&real, broker.database()).unwrap();
    broker.launch();
    let peer = Peer::register(&broker.http(), "reader", json!({}));
    send_many(&broker, &peer, 5);
    broker.kill();
    assert!(real.exists() && beside(&real, "-wal").exists() && !beside(&broker.database(), "-wal").exists());
    broker.launch();
    assert_eq!(broker.count("SELECT count(*) FROM message"), 5);
    fs::remove_file(broker.database()).unwrap();
    symlink(place.path().join("other.db"), broker.database()).unwrap();
    let message = json!({"to": peer.id, "text": "where to"});
    eventually("the broker sees that the link points elsewhere", || match broker.http().try_post("/v1/send", &message) {
        Ok(answer) => (answer.code() == "database_moved").then_some(()),
        Err(_) => Some(()),
    });
}

#[test]
fn neighbours_of_a_database_are_left_alone() {
    let place = folder();
    fs::write(place.path().join("Cargo.lock"), "precious").unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let started = ["Cargo.db", "other.one", "other.two"].map(|name| Broker::with(&[("CLAUDE_PEERS_DB", &at(name))]));
    assert_eq!(fs::read_to_string(place.path().join("Cargo.lock")).unwrap(), "precious");
    drop(started);
    let mut names: Vec<_> =
        fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let ours = ["-wal", "-shm", "-search", "-search-journal"];
    names.retain(|name| !ours.iter().any(|ending| name.ends_with(ending)));
    names.sort();
    assert_eq!(names, ["Cargo.db", "Cargo.lock", "other.one", "other.two"]);
}
