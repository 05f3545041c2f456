//! Databases of legacy clients and of other versions, and damaged, missing or unwritable ones.

use crate::support::{Broker, events::Peer, folder, other::as_another_user};
use chrono::{DateTime, SecondsFormat, Utc};
use rusqlite::{Connection, config::DbConfig, params, types::Value as Cell};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::{Seek, SeekFrom, Write},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process,
    time::SystemTime,
};

const UNLIMITED: [(&str, &str); 1] = [("CLAUDE_PEERS_RATE_LIMIT", "0")];

fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

/// A database as a killed legacy broker leaves it: in WAL mode, with some data only in the log.
fn reference(path: &Path) -> Connection {
    let database = Connection::open(path).unwrap();
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    database.pragma_update(None, "foreign_keys", false).unwrap(); // as in the legacy broker
    database
        .execute_batch(
            "CREATE TABLE peers (id TEXT PRIMARY KEY, pid INTEGER, cwd TEXT, git_root TEXT, tty TEXT, summary TEXT,
                 registered_at TEXT, last_seen TEXT);
             CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, from_id TEXT REFERENCES peers (id),
                 to_id TEXT REFERENCES peers (id), text TEXT, sent_at TEXT, delivered INTEGER DEFAULT 0);",
        )
        .unwrap();
    database
}

fn add_peer(database: &Connection, id: &str, pid: u32, seen: &str) {
    let sql = "INSERT INTO peers VALUES (?1, ?2, '/srv/' || ?1, NULL, '/dev/pts/3', 'works on ' || ?1, ?3, ?3)";
    database.execute(sql, params![id, pid, seen]).unwrap();
}

fn add_message(database: &Connection, from: &str, to: &str, text: &str, delivered: bool) {
    let sql =
        "INSERT INTO messages (from_id, to_id, text, sent_at, delivered) VALUES (?1, ?2, ?3, '2026-05-16T12:36:00.000Z', ?4)";
    database.execute(sql, params![from, to, text, delivered]).unwrap();
}

/// Every row of the legacy tables.
fn rows(path: &Path) -> Vec<Vec<Cell>> {
    let database = Connection::open(path).unwrap();
    let mut all = Vec::new();
    for table in ["peers", "messages"] {
        let mut statement = database.prepare(&format!("SELECT * FROM {table} ORDER BY rowid")).unwrap();
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
        all.extend(statement.query_map([], row).unwrap().map(Result::unwrap));
    }
    all
}

fn history(broker: &Broker) -> Vec<Value> {
    let page = broker.http().get("/v1/history?limit=1000").json();
    page["messages"].as_array().unwrap().iter().rev().cloned().collect()
}

fn poll(broker: &Broker, id: &str) -> Vec<Value> {
    broker.tcp().post("/poll-messages", &json!({"id": id})).json()["messages"].as_array().unwrap().clone()
}

#[test]
fn legacy_database_is_imported_and_left_unchanged() {
    let mut broker = Broker::prepared(&[]);
    let database = reference(&broker.database());
    let seen = now().to_rfc3339_opts(SecondsFormat::Millis, true);
    add_peer(&database, "eel", process::id(), &seen);
    add_peer(&database, "gone", 999_999_999, "2026-05-16T12:36:00.000Z");
    add_message(&database, "gone", "eel", "fetched already", true);
    add_message(&database, "gone", "eel", "from a peer that is gone", false);
    add_message(&database, "cli", "eel", "from a person", false);
    add_message(&database, "eel", "gone", "to a peer that is gone", false);
    add_message(&database, "stray", "never-was", "between peers that never were", false);
    drop(database);
    assert!(fs::metadata(broker.folder().join("peers.db-wal")).unwrap().len() > 0, "some of it is only in the log");
    let before = rows(&broker.database());

    let starts = 3;
    for start in 0..starts {
        broker.launch();
        let known: Vec<(Value, Value, Value, Value)> = history(&broker)
            .iter()
            .map(|entry| (entry["from"].clone(), entry["to"].clone(), entry["text"].clone(), entry["state"].clone()))
            .collect();
        let entry = |from, to, text, state| (json!(from), json!(to), json!(text), json!(state));
        assert_eq!(
            known,
            [
                entry("gone", "eel", "fetched already", "offered"),
                entry("gone", "eel", "from a peer that is gone", "queued"),
                entry("cli", "eel", "from a person", "queued"),
                entry("eel", "gone", "to a peer that is gone", "queued"),
                entry("stray", "never-was", "between peers that never were", "queued"),
            ],
            "start {start}"
        );
        assert_eq!(broker.stored(), (5, 2));
        if start + 1 < starts {
            assert!(broker.terminate().success());
        }
    }
    assert_eq!(rows(&broker.database()), before, "the reference's own tables are untouched");

    // The legacy session keeps polling and gets its waiting mail.
    let mail = poll(&broker, "eel");
    let shown: Vec<_> = mail.iter().map(|m| (m["from_id"].as_str().unwrap(), m["text"].as_str().unwrap())).collect();
    assert_eq!(shown, [("gone", "from a peer that is gone"), ("cli", "from a person")]);
    let peers = broker.http().get("/v1/peers?scope=machine").json();
    let listed: Vec<_> = peers["peers"].as_array().unwrap().iter().map(|peer| peer["id"].as_str().unwrap()).collect();
    assert_eq!(listed, ["eel"], "the one that is gone is not listed");
    let eel = &peers["peers"][0];
    assert_eq!((&eel["summary"], &eel["cwd"], &eel["tty"]), (&json!("works on eel"), &json!("/srv/eel"), &json!("/dev/pts/3")));
    let reply = json!({"from_id": "eel", "to_id": "gone", "text": "on we go"});
    assert_eq!(broker.tcp().post("/send-message", &reply).json()["ok"], true);
}

#[test]
fn odd_legacy_rows_do_not_stop_the_import() {
    let mut broker = Broker::prepared(&[]);
    let database = reference(&broker.database());
    let odd = "INSERT INTO peers VALUES ('nothing', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
                   ('an id with spaces', 1, '/', NULL, NULL, '', 'yesterday', 'today'),
                   ('huge', 1099511627776, '/', NULL, NULL, '', '', ''), ('minus', -1, '/', NULL, NULL, '', '', ''),
                   ('words', 'many', 7, NULL, NULL, 3.5, 8, x'00');
               INSERT INTO messages (from_id, to_id, text, sent_at, delivered) VALUES (NULL, NULL, NULL, NULL, NULL),
                   ('words', 'huge', 42, 'yesterday', 'no'), ('words', 'huge', 'plain', '2026-05-16T12:36:00Z', 0);";
    database.execute_batch(odd).unwrap();
    drop(database);
    broker.launch();
    let texts: Vec<_> = history(&broker).iter().map(|entry| entry["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(texts.last().map(String::as_str), Some("plain"));
    assert!(texts.contains(&"42".to_owned()), "{texts:?}");
}

#[test]
fn newer_database_is_refused_and_left_unchanged() {
    for in_wal_mode in [false, true] {
        let broker = Broker::prepared(&[]);
        let database = reference(&broker.database());
        add_message(&database, "cli", "eel", "from the future", false);
        database.pragma_update(None, "user_version", 99).unwrap();
        if !in_wal_mode {
            database.pragma_update(None, "journal_mode", "delete").unwrap();
        }
        drop(database);
        let before = files(broker.folder());
        assert_eq!(broker.refused(), 4);
        assert_eq!(files(broker.folder()), before, "in WAL mode: {in_wal_mode}");
        let (log, path) = (broker.log(), broker.database());
        for words in [path.to_str().unwrap(), "newer", "schema 99", "upgrade claude-peers", "CLAUDE_PEERS_DB"] {
            assert!(log.contains(words), "{words}: {log}");
        }
        assert!(!broker.socket().exists(), "it never listened");
    }
}

/// Every file in a folder with its bytes, except the log and the WAL index, which each reader rebuilds.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let counts = |path: &PathBuf| !["log", "peers.db-shm"].iter().any(|name| path.ends_with(name));
    paths.filter(counts).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// The first released schema. It never changes, because databases of every earlier version must always open.
const SCHEMA_1: &str = include_str!("fixtures/schema-1.sql");

#[test]
fn first_schema_still_opens_with_all_its_data() {
    let migration = include_str!("../../src/db/migrations/0001-mailboxes.sql");
    assert_eq!(SCHEMA_1, migration, "a migration that was released is never changed: append another one");

    let mut broker = Broker::prepared(&[]);
    let database = Connection::open(broker.database()).unwrap();
    database.execute_batch(SCHEMA_1).unwrap();
    database.pragma_update(None, "user_version", 1).unwrap();
    database
        .execute_batch(&format!(
            "INSERT INTO peer (id, name, secret, cwd, summary, summary_source, registered_at, last_seen)
                 VALUES ('k7xq2m', 'eel', x'5d865deae06fbd34fe9ce848f3e5fc4368f2f612b18aef47f29f2164563a0140', '/srv/eel', 'old work', 'session', 1, {0});
             INSERT INTO session VALUES ('session-a', 'k7xq2m', {0});
             INSERT INTO message (tag, from_peer, to_peer, text, key, sent_at, expires_at, state, waiting)
                 VALUES ('aaaaaa', 'cli', 'k7xq2m', 'waits', 'key-1', 1, {1}, 0, 1), ('bbbbbb', 'cli', 'k7xq2m', 'was read', NULL, 1, {1}, 2, 0);",
            now().timestamp_millis(),
            i64::MAX / 2
        ))
        .unwrap();
    drop(database);
    broker.launch();
    let eel = broker.http().as_peer("old-secret");
    let me = eel.get("/v1/whoami").json();
    assert_eq!(
        (&me["id"], &me["name"], &me["summary"], &me["waiting"]),
        (&json!("k7xq2m"), &json!("eel"), &json!("old work"), &json!(1))
    );
    let again = json!({"to": "eel", "text": "waits", "key": "key-1"});
    assert_eq!(broker.http().post("/v1/send", &again).json()["messageId"], "m1-aaaaaa", "its idempotency keys hold");
    let taken = eel.post("/v1/take", &json!({"lease": "l", "route": "check_messages"})).json();
    assert_eq!((&taken["messages"][0]["text"], &taken["more"]), (&json!("waits"), &json!(0)));
    assert_eq!(history(&broker).len(), 2);
    let facts = json!({"sessionId": "session-a"});
    assert_eq!(Peer::register(&broker.http(), "resumed", facts).id, "k7xq2m", "its session is known");
}

/// The second migration as it was released.
const SCHEMA_2: &str = include_str!("fixtures/schema-2.sql");

#[test]
fn leases_of_the_second_schema_keep_their_holders() {
    let migration = include_str!("../../src/db/migrations/0002-inbox.sql");
    assert_eq!(SCHEMA_2, migration, "a migration that was released is never changed: append another one");

    let mut broker = Broker::prepared(&[]);
    let database = Connection::open(broker.database()).unwrap();
    database.execute_batch(SCHEMA_1).unwrap();
    database.execute_batch(SCHEMA_2).unwrap();
    database.pragma_update(None, "user_version", 2).unwrap();
    let (now, far) = (now().timestamp_millis(), i64::MAX / 2);
    database
        .execute_batch(&format!(
            "INSERT INTO peer (id, name, secret, instance, cwd, registered_at, last_seen)
                 VALUES ('k7xq2m', 'eel', x'5d865deae06fbd34fe9ce848f3e5fc4368f2f612b18aef47f29f2164563a0140', 'in:st', '/srv/eel', 1, {now});
             INSERT INTO message (tag, from_peer, to_peer, text, sent_at, expires_at, lease, handed, again) VALUES
                 ('aaaaaa', 'cli', 'k7xq2m', 'stream', 1, {far}, 's:in:st', 1, 0),
                 ('bbbbbb', 'cli', 'k7xq2m', 'take', 1, {far}, 't:in:st:lease:a', 1, 0),
                 ('cccccc', 'cli', 'k7xq2m', 'dead stream', 1, {far}, 's:in', 1, 0),
                 ('dddddd', 'cli', 'k7xq2m', 'dead take', 1, {far}, 't:in:x', 1, 0),
                 ('eeeeee', 'cli', 'k7xq2m', 'hook', 1, {far}, 'h:in:st', 1, 0),
                 ('ffffff', 'cli', 'k7xq2m', 'announced', 1, {far}, NULL, 0, 2);"
        ))
        .unwrap();
    drop(database);
    broker.launch();
    let held = |holder: &str| broker.count(&format!("SELECT count(*) FROM message WHERE waiting = 1 AND {holder}"));
    assert_eq!(held("holder = 1 AND instance = 'in:st' AND lease IS NULL AND text = 'stream'"), 1);
    assert_eq!(held("holder = 2 AND instance = 'in:st' AND lease = 'lease:a' AND text = 'take'"), 1);
    assert_eq!(held("holder = 0 AND instance IS NULL AND lease IS NULL"), 4, "their holders are gone");

    let eel = broker.http().as_peer("old-secret");
    let take = |lease: &str| {
        let taken = eel.post("/v1/take", &json!({"lease": lease, "route": "check_messages"})).json();
        let texts: Vec<_> =
            taken["messages"].as_array().unwrap().iter().map(|m| (m["text"].clone(), m["repeat"] == true)).collect();
        texts
    };
    assert_eq!(take("lease:a"), [(json!("take"), false)], "the same lease gives the same messages");
    assert_eq!(take("other"), [], "what came later waits for what came before");
    let resumed = Peer::register(&eel, "another-process", json!({}));
    let taken = resumed.over(&broker.http()).post("/v1/take", &json!({"lease": "all", "route": "check_messages"})).json();
    let repeats = taken["messages"].as_array().unwrap().iter().filter(|message| message["repeat"] == true).count();
    assert_eq!((taken["messages"].as_array().unwrap().len(), repeats, &taken["more"]), (6, 5, &json!(0)));
}

type Damage = fn(&Path);

/// Kinds of damage to a database file with [`MESSAGES`] messages, and how many of them are saved.
const DAMAGES: [(&str, RangeInclusive<usize>, Damage); 3] = [
    ("pages in the middle are overwritten", 11..=MESSAGES - 1, |path| {
        let (mut file, length) = opened(path);
        file.seek(SeekFrom::Start(length / 4096 * 2 / 5 * 4096)).unwrap();
        file.write_all(&vec![0xa5; (length / 5) as usize]).unwrap();
    }),
    ("it ends half-way", 11..=MESSAGES - 1, |path| {
        let (file, length) = opened(path);
        file.set_len(length / 4096 / 2 * 4096).unwrap();
    }),
    ("its header is overwritten", MESSAGES..=MESSAGES, |path| opened(path).0.write_all(&[0; 100]).unwrap()),
];
const MESSAGES: usize = 200;

fn opened(path: &Path) -> (fs::File, u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    (file, length)
}

#[test]
fn damaged_database_is_set_aside_and_salvaged() {
    for (what, savable, damage) in DAMAGES {
        let mut broker = Broker::with(&UNLIMITED);
        let reader = Peer::register(&broker.http(), "reader", json!({}));
        let mut conversation = broker.http().converse();
        for number in 0..MESSAGES {
            let message = json!({"to": reader.id, "text": format!("number {number} {}", "x".repeat(1_000))});
            assert_eq!(conversation.ask("POST", "/v1/send", &message.to_string()).status, 200);
        }
        assert!(broker.terminate().success());
        damage(&broker.database());
        let damaged = fs::read(broker.database()).unwrap();

        broker.launch();
        let aside = set_aside(&broker);
        assert_eq!(aside.len(), 1, "{what}: {aside:?}");
        let name = aside[0].file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("peers.db.damaged-20") && name.ends_with('Z'), "{name}");
        assert!(fs::read(&aside[0]).unwrap() == damaged, "{what}: it was changed");
        let notices = broker.http().get("/v1/status").json()["notices"].to_string();
        for said in [&notices, &broker.log()] {
            assert!(said.contains("damaged") && said.contains(name) && said.contains("recovered"), "{what}: {said}");
        }
        let saved = history(&broker).len();
        assert!(savable.contains(&saved), "{what}: {saved} messages were saved");
        assert!(notices.contains(&format!("{saved} of table message")), "{what}: {notices}");
        assert_eq!(poll_as(&broker, &reader), saved, "{what}: what was saved is handed over");
        let reader = Peer::register(&broker.http(), "new-reader", json!({}));
        assert_eq!(broker.http().post("/v1/send", &json!({"to": reader.id, "text": "on we go"})).status, 200, "{what}");

        assert!(broker.terminate().success());
        broker.launch();
        assert_eq!((set_aside(&broker), history(&broker).len()), (aside, saved + 1), "{what}: it is well from then on");
        assert_eq!(broker.http().get("/v1/status").json()["notices"], json!([]));
    }
}

fn set_aside(broker: &Broker) -> Vec<PathBuf> {
    let paths = fs::read_dir(broker.folder()).unwrap().map(|entry| entry.unwrap().path());
    let is_main = |name: &str| name.contains(".damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm");
    paths.filter(|path| is_main(path.to_str().unwrap())).collect()
}

/// How many messages the peer gets.
fn poll_as(broker: &Broker, peer: &Peer) -> usize {
    let http = peer.over(&broker.http());
    let take = json!({"lease": "l", "route": "check_messages", "maxBytes": u32::MAX});
    http.post("/v1/take", &take).json()["messages"].as_array().unwrap().len()
}

#[test]
fn empty_and_missing_files_become_databases() {
    for found in [true, false] {
        let mut broker = Broker::prepared(&[]);
        if found {
            fs::write(broker.database(), "").unwrap();
        }
        broker.launch();
        assert_eq!(broker.stored(), (0, 0));
        assert_eq!(broker.http().get("/v1/status").json()["notices"], json!([]));
    }
}

#[test]
fn unusable_database_path_is_reported() {
    let folder = folder();
    fs::write(folder.path().join("file"), "").unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    for place in [folder.path().join("file/peers.db"), PathBuf::from("/proc/nowhere/peers.db"), folder.path().join("folder")] {
        let broker = Broker::prepared(&[("CLAUDE_PEERS_DB", place.to_str().unwrap())]);
        assert_eq!(broker.refused(), 1, "{}", place.display());
        let log = broker.log();
        assert!(log.contains(&format!("opening database {}", place.display())) && log.contains("set CLAUDE_PEERS_DB"), "{log}");
        assert!(!broker.socket().exists(), "it never listened");
    }
}

#[test]
fn unwritable_folder_is_reported() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can become a user who may not write everywhere");
    }
    use std::os::unix::fs::PermissionsExt;
    let broker = Broker::prepared(&[]);
    let program = broker.folder().join("claude-peersd");
    fs::copy(env!("CARGO_BIN_EXE_claude-peersd"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(broker.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    let output = as_another_user(&program).envs(broker.env()).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("Permission denied") && log.contains("writable, or set CLAUDE_PEERS_DB"), "{log}");
}
