//! The database survives kills, damage, a full disk and changes to its files, at every step.

mod damage;
mod files;
mod locked;
mod salvage;

use crate::support::{
    Broker,
    events::Peer,
    http::{Answer, Http},
    random::Random,
};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::{
    fs::{self, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::Path,
};

const UNLIMITED: [(&str, &str); 3] =
    [("CLAUDE_PEERS_RATE_LIMIT", "0"), ("CLAUDE_PEERS_WAITING_LIMIT", "1000000"), ("CLAUDE_PEERS_REPEAT_LIMIT", "1000000")];
const PAGE: u64 = 4096;

/// Sends `count` messages of about 1,000 bytes from the command line to `peer`.
fn send_many(broker: &Broker, peer: &Peer, count: usize) {
    let mut conversation = broker.http().converse();
    for number in 0..count {
        let message = json!({"to": peer.id, "text": format!("number {number} {}", "x".repeat(1_000))});
        assert_eq!(conversation.ask("POST", "/v1/send", &message.to_string()).status, 200);
    }
}

/// The database and every file beside it, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let named =
        entries.filter(|entry| entry.path().is_file()).map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    let mut files: Vec<_> =
        named.filter(|(name, _)| name.starts_with("peers.db")).map(|(name, path)| (name, fs::read(path).unwrap())).collect();
    files.sort();
    files
}

/// Restores the folder to exactly these files.
fn put_back(folder: &Path, before: &[(String, Vec<u8>)]) {
    files(folder).iter().for_each(|(name, _)| fs::remove_file(folder.join(name)).unwrap());
    before.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

fn noise(random: &mut Random, length: u64) -> Vec<u8> {
    (0..length).map(|_| random.below(256) as u8).collect()
}

/// Makes every kind of request; returns the first answer that reports a failure of the broker.
fn use_all(http: &Http) -> io::Result<Option<String>> {
    let facts = |instance: &str| {
        json!({"client": {"name": "test", "version": "0"}, "instance": instance, "pid": std::process::id(), "cwd": "/tmp",
               "sessionId": format!("session-{instance}"), "delivery": "pull"})
    };
    let mut failure = None;
    let mut heard = |path: &str, answer: Answer| {
        if answer.status >= 500 {
            failure.get_or_insert_with(|| format!("{path}: {} {}", answer.status, answer.body));
        }
        serde_json::from_str::<Value>(&answer.body).unwrap_or_default()
    };
    let mut ask = |http: &Http, path: &str, body: Value| Ok::<_, io::Error>(heard(path, http.try_post(path, &body)?));
    let peer = ask(http, "/v1/register", facts("verbs"))?;
    let me = http.as_peer(peer["secret"].as_str().unwrap_or_default());
    let sent = ask(http, "/v1/send", json!({"to": peer["id"], "text": "verb", "key": peer["secret"]}))?;
    for _ in 0..2 {
        let take = json!({"lease": "verbs", "route": "check_messages", "maxBytes": u32::MAX});
        let taken = ask(&me, "/v1/take", take)?;
        let messages = taken["messages"].as_array().cloned().unwrap_or_default();
        let outcomes: Vec<_> = messages.iter().map(|message| json!({"id": message["id"], "outcome": "delivered"})).collect();
        ask(&me, "/v1/acknowledge", json!({"route": "check_messages", "messages": outcomes}))?;
    }
    ask(&me, "/v1/set-summary", json!({"summary": "at work"}))?;
    ask(http, &format!("/v1/messages/{}/release", sent["messageId"].as_str().unwrap_or("m1-aaaaaa")), json!({}))?;
    ask(&me, "/v1/unregister", json!({}))?;
    for path in ["/v1/status", "/v1/peers?scope=machine", "/v1/history?limit=1000"] {
        heard(path, http.try_get(path)?);
    }
    Ok(failure)
}

/// Restarts the broker, as a service manager does, until every request works.
fn works_again(broker: &mut Broker, what: &str) {
    let mut failures = Vec::new();
    for _ in 0..4 {
        broker.launch();
        match use_all(&broker.http()) {
            Ok(None) => return assert!(broker.terminate().success(), "{what}"),
            Ok(Some(failure)) => failures.push(failure),
            Err(error) => failures.push(error.to_string()),
        }
        assert_eq!(broker.wait().code(), Some(1), "{what}: it gives up its place: {failures:?}");
    }
    panic!("{what}: it fails for good: {failures:?}");
}

fn count(path: &Path, sql: &str) -> i64 {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}
