//! What the broker does while it is recorded, and what its clients are told meanwhile.

use super::{
    check,
    disk::{Disk, Tree},
    recorder::{self, Step},
};
use crate::support::{Broker, events::Peer, random::Random};
use rusqlite::{Connection, config::DbConfig};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::{fs::FileExt, process::parent_id},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

const UNLIMITED: [(&str, &str); 3] =
    [("CLAUDE_PEERS_RATE_LIMIT", "0"), ("CLAUDE_PEERS_WAITING_LIMIT", "1000000"), ("CLAUDE_PEERS_REPEAT_LIMIT", "1000000")];
const PAGE: u64 = 4096;

/// What a client was told, and what therefore survives every later power cut.
#[derive(Debug, Clone)]
pub enum Promise {
    /// The peer with this id and secret is known.
    Registered { id: String, secret: String },
    /// This message of a sender is stored under this id.
    Accepted { sender: String, number: usize, id: String },
    /// It counts as shown, so a second showing is marked as a repeat.
    Shown { id: String },
    /// It is delivered and never comes again.
    Delivered { id: String },
    /// Its recipient's controls hold it, and nobody releases it.
    Held { id: String },
    /// The user has released it.
    Released { id: String },
}

/// One recorded run of the broker.
#[derive(Debug)]
pub struct Recording {
    pub name: &'static str,
    /// The disk before the first step.
    pub start: Tree,
    pub steps: Vec<Step>,
    /// Each promise with the number of steps before it was heard.
    pub promises: Vec<(usize, Promise)>,
    /// The texts of each sender in order, whether or not they were accepted.
    pub tried: BTreeMap<String, Vec<String>>,
    /// The texts on the disk at the start, each with whether it is delivered.
    pub kept: Vec<(String, bool)>,
    /// The damaged database at the start, if it was damaged.
    pub damaged: Option<Vec<u8>>,
}

/// A broker under the recorder.
struct Scene {
    name: &'static str,
    broker: Broker,
    root: PathBuf,
    log: tempfile::NamedTempFile,
    start: Tree,
    heard: Mutex<Vec<(u64, Promise)>>,
    tried: Mutex<BTreeMap<String, Vec<String>>>,
    kept: Vec<(String, bool)>,
    damaged: Option<Vec<u8>>,
}

impl Scene {
    /// A broker that is not started yet; its folder does not exist.
    fn new(name: &'static str) -> Self {
        let broker = Broker::prepared(&UNLIMITED);
        let root = broker.folder().canonicalize().unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        let (heard, tried) = Default::default();
        Self { name, broker, root, log, start: Tree::new(), heard, tried, kept: Vec::new(), damaged: None }
    }

    fn database(&self) -> PathBuf {
        self.root.join("data/peers.db")
    }

    fn command(&self) -> Command {
        let mut command = self.broker.command();
        command.env("CLAUDE_PEERS_DB", self.database());
        command
    }

    /// Starts the broker under the recorder.
    fn launch(&mut self) {
        let mut command = self.command();
        recorder::watch(&mut command, &self.root, self.log.path());
        self.broker.launch_as(command);
    }

    /// Starts the broker without the recorder, to prepare its database.
    fn launch_unrecorded(&mut self) {
        self.broker.launch_as(self.command());
    }

    fn terminate(&mut self) {
        assert!(self.broker.terminate().success(), "{}", self.broker.log());
    }

    /// From here on the disk is followed.
    fn begin(&mut self) {
        self.start = files(&self.root);
        *self.heard.get_mut().unwrap() = Vec::new();
        *self.tried.get_mut().unwrap() = BTreeMap::new();
    }

    /// Notes a promise that a client has just heard.
    fn hear(&self, promise: Promise) {
        let length = self.log.path().metadata().unwrap().len();
        self.heard.lock().unwrap().push((length, promise));
    }

    fn register(&self, name: &str) -> Peer {
        self.register_as(name, json!({"cwd": format!("/srv/{name}")}))
    }

    fn register_as(&self, name: &str, facts: Value) -> Peer {
        let peer = Peer::register(&self.broker.http(), name, facts);
        self.hear(Promise::Registered { id: peer.id.clone(), secret: peer.secret.clone() });
        peer
    }

    /// Sends `count` messages from `from` to `to`, one after the other, each of up to `longest` bytes. Returns their ids.
    fn send(&self, from: &Peer, to: &Peer, count: usize, longest: usize) -> Vec<String> {
        let sender = &from.id;
        let send = |_| {
            let mut tried = self.tried.lock().unwrap();
            let texts = tried.entry(sender.clone()).or_default();
            let number = texts.len();
            let length = longest * (number % 4 + 1) / 4;
            let text = format!("{sender} {number} {}", char::from(b'a' + (number % 26) as u8).to_string().repeat(length));
            texts.push(text.clone());
            drop(tried);
            let sent = from.over(&self.broker.http()).post("/v1/send", &json!({"to": to.id, "text": text})).json();
            let id = sent["messageId"].as_str().unwrap().to_owned();
            self.hear(Promise::Accepted { sender: sender.clone(), number, id: id.clone() });
            id
        };
        (0..count).map(send).collect()
    }

    /// Messages to a session whose controls hold all of them; the user releases the second half.
    fn hold(&self, from: &Peer, name: &str) {
        let ids = self.send(from, &self.register_as(name, json!({"inbound": "hold"})), 6, 400);
        let (stay, go) = ids.split_at(3);
        stay.iter().for_each(|id| self.hear(Promise::Held { id: id.clone() }));
        for id in go {
            let released = self.broker.http().post(&format!("/v1/messages/{id}/release"), &json!({}));
            assert_eq!(released.status, 200, "{}", released.body);
            self.hear(Promise::Released { id: id.clone() });
        }
    }

    /// Messages to a session with an inbox: they are written in frames, and its hook proves all but the last frame.
    fn let_in(&self, from: &Peer, name: &str) {
        let agent = json!({"pid": parent_id(), "started": 1});
        let facts = json!({"inbox": "/tmp/inbox", "host": agent, "hookToken": name, "hookProvesAll": true});
        let to = self.register_as(name, facts);
        let http = to.over(&self.broker.http());
        for round in 0..3 {
            self.send(from, &to, 2, 400);
            let taken = http.post("/v1/take", &json!({"lease": format!("frame-{round}"), "route": "inbox"})).json();
            let ids: Vec<String> =
                taken["messages"].as_array().unwrap().iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect();
            assert_eq!(ids.len(), 2, "{taken}");
            ids.iter().for_each(|id| self.hear(Promise::Shown { id: id.clone() }));
            let offered: Vec<Value> = ids.iter().map(|id| json!({"id": id, "outcome": "offered"})).collect();
            http.post("/v1/acknowledge", &json!({"route": "inbox", "messages": offered})).json();
            if round < 2 {
                let report = json!({"event": "UserPromptSubmit", "messages": ids}).to_string();
                let authorization = format!("Session {name}");
                let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
                let told = self.broker.http().request("POST", "/v1/hook", &headers, &report);
                assert_eq!(told.status, 200, "{}", told.body);
                ids.iter().for_each(|id| self.hear(Promise::Delivered { id: id.clone() }));
            }
        }
    }

    /// Takes what waits for `peer` and acknowledges it; now and then gives it back instead.
    fn take(&self, peer: &Peer, round: usize) {
        let http = peer.over(&self.broker.http());
        let take = json!({"lease": format!("lease-{round}"), "route": "check_messages", "maxBytes": 20_000});
        let taken = http.post("/v1/take", &take).json();
        let ids: Vec<&str> =
            taken["messages"].as_array().unwrap().iter().map(|message| message["id"].as_str().unwrap()).collect();
        let is_released = round % 4 == 3;
        if !is_released {
            ids.iter().for_each(|id| self.hear(Promise::Shown { id: (*id).to_owned() }));
        }
        let outcome = if is_released { "released" } else { "delivered" };
        let outcomes: Vec<Value> = ids.iter().map(|id| json!({"id": id, "outcome": outcome})).collect();
        http.post("/v1/acknowledge", &json!({"route": "check_messages", "messages": outcomes})).json();
        if !is_released {
            ids.iter().for_each(|id| self.hear(Promise::Delivered { id: (*id).to_owned() }));
        }
    }

    /// Lets `senders` peers send to `to` at once, so that they share commits, while `to` reads.
    fn load(&self, to: &Peer, senders: usize, count: usize, longest: usize) {
        let peers: Vec<Peer> = (0..senders).map(|number| self.register(&format!("{}-{number}", to.name))).collect();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut round = 0;
                while !is_over.load(Ordering::Relaxed) || round % 4 != 0 {
                    self.take(to, round);
                    round += 1;
                }
            });
            let sending: Vec<_> = peers.iter().map(|peer| scope.spawn(|| self.send(peer, to, count, longest))).collect();
            let sent: Vec<_> = sending.into_iter().map(thread::ScopedJoinHandle::join).collect();
            is_over.store(true, Ordering::Relaxed);
            sent.into_iter().for_each(|sent| drop(sent.unwrap()));
            reader.join().unwrap();
        });
    }

    /// Ends the recording. The recorder has missed nothing: the steps lead to the files that are there.
    fn end(mut self) -> Recording {
        self.terminate();
        let recorder::Log { steps, ends } = recorder::read(self.log.path());
        let mut disk = Disk::new(&self.start);
        steps.iter().for_each(|step| disk.follow(step));
        let (followed, real) = (disk.live(), files(&self.root));
        assert!(followed == real, "recorded {:?}, found {:?}", sizes(&followed), sizes(&real));
        let steps_before = |length: &u64| ends.partition_point(|end| end <= length);
        let heard = std::mem::take(self.heard.get_mut().unwrap());
        let promises = heard.into_iter().map(|(length, promise)| (steps_before(&length), promise)).collect();
        let tried = std::mem::take(self.tried.get_mut().unwrap());
        Recording { name: self.name, start: self.start, steps, promises, tried, kept: self.kept, damaged: self.damaged }
    }
}

/// The files in the folder `data`, without the memory that connections share.
pub fn files(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let Ok(entries) = fs::read_dir(root.join("data")) else { return tree };
    tree.insert("data".to_owned(), None);
    for entry in entries {
        let name = format!("data/{}", entry.unwrap().file_name().to_str().unwrap());
        if !name.ends_with("-shm") {
            let content = fs::read(root.join(&name)).unwrap();
            tree.insert(name, Some(content));
        }
    }
    tree
}

/// The names and lengths of files, for people.
pub fn sizes(tree: &Tree) -> Vec<(&str, usize)> {
    tree.iter().map(|(name, content)| (name.as_str(), content.as_ref().map_or(0, Vec::len))).collect()
}

/// A new database; stops, restarts and a kill with a few messages between them, some of them held, some for an inbox.
pub fn fresh() -> Recording {
    let mut scene = Scene::new("fresh");
    scene.launch();
    let (from, to) = (scene.register("from"), scene.register("to"));
    scene.send(&from, &to, 6, 400);
    scene.hold(&from, "guarded");
    scene.terminate();
    scene.launch();
    scene.send(&from, &to, 6, 400);
    scene.let_in(&from, "inboxed");
    scene.broker.kill();
    scene.launch();
    scene.send(&from, &to, 4, 400);
    scene.hold(&from, "guarded-again");
    scene.end()
}

/// Eight senders at once, and a recipient that takes and acknowledges.
pub fn load() -> Recording {
    let mut scene = Scene::new("load");
    scene.launch();
    let to = scene.register("to");
    scene.load(&to, 8, 20, 3_000);
    scene.broker.kill();
    scene.launch();
    (0..6).for_each(|round| scene.take(&to, 100 + round));
    scene.end()
}

/// Long messages fill the log until it is copied into the database and begins anew; small ones follow.
pub fn checkpoint() -> Recording {
    let mut scene = Scene::new("checkpoint");
    scene.launch();
    let (to, other) = (scene.register("to"), scene.register("other"));
    scene.load(&to, 3, 45, 60_000);
    scene.send(&other, &to, 20, 200);
    scene.end()
}

/// A database of the first schema, with a part of it in its log.
pub fn migration() -> Recording {
    let schema = include_str!("../suite/fixtures/schema-1.sql");
    let insert = "INSERT INTO message (tag, from_peer, to_peer, text, sent_at, expires_at, state, waiting)
                  VALUES ('aaaaaa', 'cli', 'k7xq2m', ?1, 1, 9223372036854775, 2 * ?2, 1 - ?2)";
    old_database("migration", &format!("{schema}; PRAGMA user_version = 1;"), insert)
}

/// A database of the legacy broker.
pub fn legacy() -> Recording {
    let schema = "CREATE TABLE peers (id TEXT PRIMARY KEY, pid INTEGER, cwd TEXT, git_root TEXT, tty TEXT, summary TEXT,
                      registered_at TEXT, last_seen TEXT);
                  CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, from_id TEXT REFERENCES peers (id),
                      to_id TEXT REFERENCES peers (id), text TEXT, sent_at TEXT, delivered INTEGER DEFAULT 0);";
    let insert = "INSERT INTO messages (from_id, to_id, text, sent_at, delivered)
                  VALUES ('gone', 'eel', ?1, '2026-05-16T12:36:00.000Z', 0 * ?2)";
    old_database("legacy", schema, insert)
}

/// Starts on a database with this schema; `insert` stores a text that is delivered or not.
fn old_database(name: &'static str, schema: &str, insert: &str) -> Recording {
    let mut scene = Scene::new(name);
    fs::create_dir(scene.root.join("data")).unwrap();
    let database = Connection::open(scene.database()).unwrap();
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    database.pragma_update(None, "foreign_keys", false).unwrap(); // as in the legacy broker
    database.execute_batch(schema).unwrap();
    for number in 0..40 {
        let (text, is_delivered) = (format!("old {number} {}", "o".repeat(number * 60)), number % 3 == 0);
        database.execute(insert, (&text, is_delivered)).unwrap();
        scene.kept.push((text, is_delivered && name == "migration"));
        if number == 25 {
            database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        }
    }
    drop(database);
    scene.begin();
    assert!(scene.start["data/peers.db-wal"].as_ref().is_some_and(|log| !log.is_empty()), "some of it is only in the log");
    scene.launch();
    let (from, to) = (scene.register("from"), scene.register("to"));
    scene.send(&from, &to, 6, 400);
    scene.end()
}

/// The messages that a start finds on a disk, each with whether it is delivered.
fn messages(tree: &Tree) -> Vec<(String, bool)> {
    check::opened(tree).unwrap().rows.into_iter().map(|row| (row.text, row.is_delivered)).collect()
}

/// A start after a power cut.
pub fn recovery() -> Recording {
    let before = load();
    let mut disk = Disk::new(&before.start);
    before.steps[..before.steps.len() * 2 / 3].iter().for_each(|step| disk.follow(step));
    let mut scene = Scene::new("recovery");
    check::put(&disk.cut(&mut Random::seeded()), &scene.root);
    scene.begin();
    scene.kept = messages(&scene.start);
    assert!(!scene.kept.is_empty(), "messages were accepted before the first cut");
    scene.launch();
    let (from, to) = (scene.register("from"), scene.register("to"));
    scene.send(&from, &to, 6, 400);
    scene.end()
}

/// A damaged database with its newest messages in its log.
pub fn salvage() -> Recording {
    let mut scene = Scene::new("salvage");
    scene.launch_unrecorded();
    let (from, to) = (scene.register("from"), scene.register("to"));
    scene.send(&from, &to, 120, 1_000);
    scene.terminate();
    scene.launch_unrecorded();
    scene.send(&from, &to, 10, 1_000);
    scene.broker.kill();
    let mut random = Random::from(1);
    let file = OpenOptions::new().write(true).open(scene.database()).unwrap();
    for part in [3, 7] {
        let page = file.metadata().unwrap().len() / PAGE * part / 10;
        let noise: Vec<u8> = (0..PAGE).map(|_| random.below(256) as u8).collect();
        file.write_all_at(&noise, page * PAGE).unwrap();
    }
    scene.begin();
    scene.damaged = scene.start["data/peers.db"].clone();
    scene.kept = messages(&scene.start);
    assert!((100..130).contains(&scene.kept.len()), "{} messages can be read", scene.kept.len());
    scene.launch();
    let (from, to) = (scene.register("new"), scene.register("newer"));
    scene.send(&from, &to, 6, 400);
    scene.end()
}
