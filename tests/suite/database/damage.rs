//! No damage, wherever it is, makes a verb fail permanently. Files of other programs stay untouched.

use super::{PAGE, UNLIMITED, count, files, noise, overwrite, put_back, send_many, works_again};
use crate::support::{Broker, events::Peer, random::Random};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::{fs, process::Stdio};

/// A stopped broker whose database holds waiting and ended messages.
fn with_mail(messages: usize) -> Broker {
    let mut broker = Broker::with(&UNLIMITED);
    for name in ["reader", "other"] {
        let facts = json!({"sessionId": format!("session-{name}"), "delivery": "pull"});
        let peer = Peer::register(&broker.http(), name, facts);
        send_many(&broker, &peer, messages / 2);
    }
    assert!(broker.terminate().success());
    broker
}

#[test]
fn damaged_index_costs_no_message() {
    const MESSAGES: usize = 60;
    let mut broker = with_mail(MESSAGES);
    let sound = files(broker.folder());
    let indexes: Vec<(String, u32)> = {
        let database = Connection::open(broker.database()).unwrap();
        let mut roots = database.prepare("SELECT name, rootpage FROM sqlite_schema WHERE type = 'index'").unwrap();
        roots.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(indexes.len(), 10, "{indexes:?}");
    let mut random = Random::seeded();
    for (index, root) in indexes {
        // The second damage gives a key a length for which there is not enough memory.
        for (at, bytes) in [(0, noise(&mut random, PAGE)), (PAGE - 8, b"\xff\xff\xff\xff\xff\xff\xff\x49".to_vec())] {
            put_back(broker.folder(), &sound);
            overwrite(&broker.database(), u64::from(root - 1) * PAGE + at, &bytes);
            works_again(&mut broker, &index);
            let found = count(&broker.database(), "SELECT count(*) FROM message WHERE text LIKE 'number %'");
            assert_eq!(found, MESSAGES as i64, "{index}, damaged from byte {at}");
        }
    }
}

/// SQLite refuses such a file, or opens it only to read, without calling it damaged. `db/header.rs` tries each byte.
#[test]
fn damaged_header_costs_no_message() {
    let mut broker = with_mail(20);
    let sound = files(broker.folder());
    for (at, bytes, what) in [(44, &[0, 0, 0, 200][..], "the format"), (18, &[3], "how to write"), (63, &[0], "the version")] {
        put_back(broker.folder(), &sound);
        overwrite(&broker.database(), at, bytes);
        works_again(&mut broker, what);
        assert_eq!(count(&broker.database(), "SELECT count(*) FROM message WHERE text LIKE 'number %'"), 20, "{what}");
    }
}

/// `CLAUDE_PEERS_TEST_DAMAGES` sets the number of rounds.
#[test]
fn random_damage_leaves_no_failing_verb() {
    let rounds = std::env::var("CLAUDE_PEERS_TEST_DAMAGES").map_or(24, |rounds| rounds.parse().unwrap());
    let mut broker = with_mail(60);
    let sound = files(broker.folder());
    let pages = fs::metadata(broker.database()).unwrap().len() / PAGE;
    for round in 0..rounds {
        let mut random = Random::from(round);
        put_back(broker.folder(), &sound);
        let mut what = format!("round {round}");
        for _ in 0..=random.below(3) {
            // About half of the damage hits the first pages, which hold the schema and the roots.
            let page = if random.below(2) == 0 { random.below(16) } else { random.below(pages) };
            let (from, length) = (random.below(PAGE), 1 << random.below(13));
            let length = u64::min(length, PAGE - from);
            overwrite(&broker.database(), page * PAGE + from, &noise(&mut random, length));
            what += &format!(", {length} bytes in page {} from {from}", page + 1);
        }
        works_again(&mut broker, &what);
    }
}

type Make = Box<dyn Fn(&Broker)>;

#[test]
fn foreign_file_is_refused_and_left_untouched() {
    let sql =
        |batch: &'static str| move |broker: &Broker| Connection::open(broker.database()).unwrap().execute_batch(batch).unwrap();
    let text = |text: &'static str| move |broker: &Broker| fs::write(broker.database(), text).unwrap();
    let kinds: [(&str, Make); 6] = [
        ("a text", Box::new(text("to be or not to be\n"))),
        ("a long text", Box::new(|broker| fs::write(broker.database(), "to be or not to be\n".repeat(1_000)).unwrap())),
        ("another program's id", Box::new(sql("PRAGMA application_id = 7; CREATE TABLE peer (x); CREATE TABLE message (x);"))),
        ("other tables", Box::new(sql("CREATE TABLE places (x)"))),
        ("other tables of some version", Box::new(sql("CREATE TABLE places (x); PRAGMA user_version = 3"))),
        (
            "other tables of a later version",
            Box::new(sql("PRAGMA journal_mode = wal; CREATE TABLE places (x); PRAGMA user_version = 77")),
        ),
    ];
    for (what, make) in kinds {
        let broker = Broker::prepared(&[]);
        make(&broker);
        let before = files(broker.folder());
        assert_eq!(broker.refused(), 2, "{what}");
        let after: Vec<_> =
            files(broker.folder()).into_iter().filter(|(name, _)| !name.ends_with("-shm") && !name.ends_with("-wal")).collect();
        assert!(after == before, "{what} was changed");
        for words in ["no database of claude-peers", "left untouched", "set CLAUDE_PEERS_DB"] {
            assert!(broker.log().contains(words), "{what}: {}", broker.log());
        }
        let output = broker.command().arg("--check-database").stdout(Stdio::piped()).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), &report["state"]), (Some(1), &json!("foreign")), "{what}: {report}");
    }
}
