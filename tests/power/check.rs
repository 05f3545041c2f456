//! Opens a disk as the broker does and holds it against what the clients were told.

use super::{
    disk::Tree,
    workload::{Promise, Recording, files, sizes},
};
use crate::support::{Broker, PATIENCE};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

/// What a power cut leaves of the memory that connections share.
const NOISE: &[u8] = b"noise!!\x01";

/// A stored message.
#[derive(Debug)]
pub struct Row {
    pub id: String,
    pub text: String,
    pub is_delivered: bool,
    is_held: bool,
    /// How often it may have been shown, unless that was not asked for.
    handed: Option<u32>,
}

/// What was found on a disk.
#[derive(Debug)]
pub struct Found {
    pub rows: Vec<Row>,
    /// The peers' ids.
    peers: BTreeSet<String>,
    notices: Vec<String>,
    /// The files after it was opened and closed.
    files: Tree,
}

/// The folder of the disks. Where a machine has one in memory, no test waits for real syncs.
fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Writes a disk into a folder.
pub fn put(tree: &Tree, root: &Path) {
    for (name, content) in tree {
        let path = root.join(name);
        match content {
            None => fs::create_dir(path).unwrap(),
            Some(content) => fs::write(path, content).unwrap(),
        }
    }
}

/// Opens a disk with the broker's own code, closes it, and reads what it holds.
pub fn opened(tree: &Tree) -> Result<Found, String> {
    let root = tempfile::tempdir_in(memory()).unwrap();
    put(tree, root.path());
    let path = root.path().join("data/peers.db");
    // A broker that never starts is a failure, not a test that never ends.
    let (done, result) = mpsc::channel();
    let opening = path.clone();
    thread::spawn(move || done.send(claude_peers::open_database(&opening, claude_peers::Extent::UnderWay)));
    let Ok(opened) = result.recv_timeout(PATIENCE) else {
        panic!("the broker's code does not open this disk: {}", root.keep().display());
    };
    let opened = opened.map_err(|error| format!("{error:?}"))?;
    opened.store.close();
    let database = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|error| error.to_string())?;
    let (rows, peers, verdict) = read(&database).map_err(|error| format!("after it was opened: {error}"))?;
    if verdict != "ok" {
        return Err(format!("after it was opened: {verdict}"));
    }
    drop(database);
    Ok(Found { rows, peers, notices: opened.notices, files: files(root.path()) })
}

/// The messages and peers, and SQLite's verdict on the file.
fn read(database: &Connection) -> rusqlite::Result<(Vec<Row>, BTreeSet<String>, String)> {
    let sql = "SELECT 'm' || seq || '-' || tag, text, state, handed, held_at IS NOT NULL FROM message ORDER BY seq";
    let mut rows = database.prepare(sql)?;
    let rows = rows.query_map([], |row| {
        let (state, handed, is_held) = (row.get::<_, u8>(2)?, row.get(3)?, row.get(4)?);
        Ok(Row { id: row.get(0)?, text: row.get(1)?, is_delivered: state == 2, is_held, handed })
    })?;
    let mut peers = database.prepare("SELECT id FROM peer")?;
    let peers = peers.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let verdict = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    Ok((rows.collect::<Result<_, _>>()?, peers, verdict))
}

/// Starts the broker on a disk and asks it over HTTP.
fn asked(tree: &Tree, promised: &[&Promise]) -> Result<Found, String> {
    let mut broker = Broker::prepared_in(&memory(), &[]);
    let root = broker.folder().to_owned();
    put(tree, &root);
    let mut command = broker.command();
    command.env("CLAUDE_PEERS_DB", root.join("data/peers.db"));
    broker.launch_as(command);
    let (mut entries, mut before) = (Vec::new(), String::new());
    loop {
        let page = broker.http().get(&format!("/v1/history?limit=1000{before}")).json();
        entries.extend(page["messages"].as_array().into_iter().flatten().cloned());
        let Some(next) = page["next"].as_str() else { break };
        before = format!("&before={next}");
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = entries.iter().rev().map(|entry| Row {
        id: text(&entry["messageId"]),
        text: text(&entry["text"]),
        is_delivered: entry["state"] == "delivered",
        is_held: entry["state"] == "held",
        handed: None,
    });
    let rows = rows.collect();
    let secrets = promised.iter().filter_map(|promise| match promise {
        Promise::Registered { secret, .. } => Some(secret),
        _ => None,
    });
    let whoami = |secret: &String| broker.http().as_peer(secret).get("/v1/whoami").body;
    let peers = secrets.map(|secret| text(&serde_json::from_str::<Value>(&whoami(secret)).unwrap()["id"])).collect();
    let notices = broker.http().get("/v1/status").json()["notices"].as_array().into_iter().flatten().map(text).collect();
    assert!(broker.terminate().success(), "{}", broker.log());
    Ok(Found { rows, peers, notices, files: files(&root) })
}

/// Opens the disk that was cut after this many steps, in this process or in a broker of its own, and checks it.
pub fn check(recording: &Recording, steps: usize, tree: &Tree, by_broker: bool) -> Result<(), String> {
    let mut tree = tree.clone();
    if steps.is_multiple_of(2) && tree.contains_key("data/peers.db") {
        tree.insert("data/peers.db-shm".to_owned(), Some(NOISE.repeat(4_096)));
    }
    let promised: Vec<&Promise> =
        recording.promises.iter().filter(|(since, _)| *since <= steps).map(|(_, promise)| promise).collect();
    let found = if by_broker { asked(&tree, &promised)? } else { opened(&tree)? };
    notices(recording, &found)?;
    let rows: BTreeMap<&str, &Row> = found.rows.iter().map(|row| (row.id.as_str(), row)).collect();
    if rows.len() != found.rows.len() {
        return Err(format!("an id is stored twice: {:?}", found.rows));
    }
    let counts = order(recording, &found)?;
    // The newest are the first to break.
    for promise in promised.into_iter().rev() {
        let is_kept = match promise {
            Promise::Registered { id, .. } => found.peers.contains(id),
            Promise::Accepted { sender, number, id } => {
                let text = &recording.tried[sender][*number];
                counts.get(sender.as_str()) > Some(number) && rows.get(id.as_str()).is_some_and(|row| row.text == *text)
            }
            Promise::Shown { id } => rows.get(id.as_str()).is_some_and(|row| row.handed.is_none_or(|handed| handed > 0)),
            Promise::Held { id } => rows.get(id.as_str()).is_some_and(|row| row.is_held),
            Promise::Released { id } => rows.get(id.as_str()).is_some_and(|row| !row.is_held),
            Promise::Delivered { id } => rows.get(id.as_str()).is_some_and(|row| row.is_delivered),
        };
        if !is_kept {
            return Err(format!("broken: {promise:?}"));
        }
    }
    Ok(())
}

/// A sound database opens without a notice. A damaged one is salvaged and is itself kept.
fn notices(recording: &Recording, found: &Found) -> Result<(), String> {
    let aside: Vec<_> = found.files.iter().filter(|(name, _)| name.contains(".damaged-") && name.ends_with('Z')).collect();
    match &recording.damaged {
        None if !found.notices.is_empty() => Err(format!("a sound database opens with {:?}", found.notices)),
        None if !aside.is_empty() => Err(format!("a sound database was set aside: {:?}", sizes(&found.files))),
        Some(damaged) if aside.len() != 1 || aside[0].1.as_ref() != Some(damaged) => {
            Err(format!("the damaged database is not kept: {:?}", sizes(&found.files)))
        }
        _ => Ok(()),
    }
}

/// All texts of the start are there once. Of each sender's texts the first ones are there, in order and unchanged; returns how
/// many.
fn order<'a>(recording: &'a Recording, found: &Found) -> Result<BTreeMap<&'a str, usize>, String> {
    let mut kept: BTreeMap<&str, bool> = recording.kept.iter().map(|(text, state)| (text.as_str(), *state)).collect();
    let mut counts = BTreeMap::new();
    for row in &found.rows {
        if let Some(is_delivered) = kept.remove(row.text.as_str()) {
            if row.is_delivered != is_delivered {
                return Err(format!("{} has another state", row.id));
            }
            continue;
        }
        let sender = row.text.split(' ').next().unwrap_or_default();
        let Some((sender, texts)) = recording.tried.get_key_value(sender) else {
            return Err(format!("nobody sent {}: {:.40}", row.id, row.text));
        };
        let count = counts.entry(sender.as_str()).or_default();
        if texts.get(*count) != Some(&row.text) {
            return Err(format!("{} is not number {count} of {sender}: {:.40}", row.id, row.text));
        }
        *count += 1;
    }
    match kept.len() {
        0 => Ok(counts),
        lost => Err(format!("{lost} messages of the start are lost")),
    }
}
