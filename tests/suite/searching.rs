//! Full-text search, and the index behind it.

use crate::support::{Broker, events::Peer, eventually, http::Http, random::Random};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// A broker with the peers `shop` and `web`, and these messages from `web` to `shop`.
fn with_messages(texts: &[&str]) -> (Broker, [Peer; 2]) {
    let broker = Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    let http = broker.http();
    let peers = ["shop", "web"].map(|name| {
        let git = json!({"commonDir": format!("/src/{name}/.git"), "head": format!("/src/{name}/.git/HEAD"), "repo": name});
        Peer::register(&http, name, json!({"cwd": format!("/src/{name}"), "git": git}))
    });
    texts.iter().for_each(|text| send(&peers[1].over(&http), "shop", text));
    (broker, peers)
}

fn send(http: &Http, to: &str, text: &str) {
    http.post("/v1/send", &json!({"to": to, "text": text})).json();
}

fn page(http: &Http, query: &str) -> Value {
    http.get(&format!("/v1/search?{query}")).json()
}

/// The texts that a search for `words` finds, best first.
fn found(http: &Http, words: &str) -> Vec<String> {
    let words: String = words.bytes().map(|byte| format!("%{byte:02X}")).collect();
    texts(&page(http, &format!("words={words}")))
}

fn texts(page: &Value) -> Vec<String> {
    page["messages"].as_array().unwrap().iter().map(|message| message["text"].as_str().unwrap().to_owned()).collect()
}

fn index(broker: &Broker) -> PathBuf {
    let mut path = broker.database().into_os_string();
    path.push("-search");
    path.into()
}

#[test]
fn words_find_messages() {
    let texts = ["Is the price a string?", "Prices are integers", "The Über-schema of /orders_v2", "nothing of this"];
    let (broker, _) = with_messages(&texts);
    let http = broker.http();
    for (words, expected) in [
        ("price", vec![texts[0]]),
        ("PRICE string", vec![texts[0]]),
        ("string price", vec![texts[0]]),
        ("price integers", vec![]),
        ("uber schema", vec![texts[2]]),
        ("orders_v2", vec![texts[2]]),
        ("\"a string\"", vec![texts[0]]),
        ("\"string a\"", vec![]),
        ("integ*", vec![texts[1]]),
        ("absent", vec![]),
    ] {
        assert_eq!(found(&http, words), expected, "{words}");
    }
    assert_eq!(found(&http, "pric*").len(), 2);
    send(&http, "shop", "a late price");
    assert_eq!(found(&http, "price").len(), 2, "what was just accepted is found");
}

#[test]
fn better_matches_come_first() {
    let long = format!("deploy {}", "and other words ".repeat(50));
    let (broker, _) = with_messages(&[&long, "deploy the deploy script", "deploy it tomorrow, not now"]);
    assert_eq!(found(&broker.http(), "deploy")[0], "deploy the deploy script");
    assert_eq!(found(&broker.http(), "deploy")[2], long);
}

#[test]
fn search_reads_a_mebibyte_of_text_at_most() {
    let texts: Vec<String> = (0..6).map(|number| format!("deploy {number}{}", " x".repeat(120 * 1024))).collect();
    let (broker, _) = with_messages(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let found = found(&broker.http(), "deploy");
    assert!(found.len() == 5 && !found.contains(&texts[0]), "the newest: {}", found.len());
}

#[test]
fn excerpts_mark_what_matches() {
    let text = format!("{} the port is \u{2}8080\u{3} today {}", "before ".repeat(60), "after ".repeat(60));
    let (broker, _) = with_messages(&[&text]);
    let page = page(&broker.http(), "words=port+8080");
    let excerpt = page["messages"][0]["excerpt"].as_array().unwrap();
    let hits: Vec<_> = excerpt.iter().filter(|part| part["hit"] == true).map(|part| part["text"].as_str().unwrap()).collect();
    assert_eq!(hits, ["port", "8080"]);
    let whole: String = excerpt.iter().map(|part| part["text"].as_str().unwrap()).collect();
    assert!(whole.starts_with('…') && whole.ends_with('…') && whole.len() < 300, "{whole}");
}

#[test]
fn filters_narrow_a_search() {
    let (broker, [shop, _web]) = with_messages(&["common one"]);
    let http = broker.http();
    send(&http, "web", "common two");
    let taken = shop.over(&http).post("/v1/take", &json!({"lease": "lease", "route": "check_messages"})).json();
    let delivered = json!({"id": taken["messages"][0]["id"], "outcome": "delivered", "lease": "lease"});
    shop.over(&http).post("/v1/acknowledge", &json!({"route": "check_messages", "messages": [delivered]})).json();
    for (query, expected) in [
        ("", vec!["common two", "common one"]),
        ("&peer=shop", vec!["common one"]),
        ("&peer=cli", vec!["common two"]),
        ("&repo=shop", vec!["common one"]),
        ("&repo=web&peer=cli", vec!["common two"]),
        ("&repo=other", vec![]),
        ("&state=delivered", vec!["common one"]),
        ("&state=queued", vec!["common two"]),
        ("&since=2999-01-01T00:00:00Z", vec![]),
        ("&before=1999-01-01T00:00:00Z", vec![]),
        ("&since=1999-01-01T00:00:00Z&before=2999-01-01T00:00:00Z&limit=1", vec!["common two"]),
    ] {
        assert_eq!(texts(&page(&http, &format!("words=common{query}"))), expected, "{query}");
    }
    assert_eq!(texts(&page(&shop.over(&http), "words=common")), ["common one"], "a peer finds its own");
    assert_eq!(texts(&page(&shop.over(&http), "words=common&peer=web")), ["common one"]);
}

#[test]
fn words_cannot_be_a_query_language() {
    let (broker, _) = with_messages(&["plain text"]);
    let http = broker.http();
    for words in [
        "text:plain",
        "NEAR(plain text)",
        "plain NOT text",
        "plain OR other",
        "^plain^",
        "'; DROP TABLE words",
        "(",
        "plain\"",
        "*",
    ] {
        let words: String = words.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = http.get(&format!("/v1/search?words={words}"));
        assert!([200, 400].contains(&answer.status), "{words}: {}", answer.body);
    }
    assert_eq!(found(&http, "plain OR other"), Vec::<String>::new());
    for (query, code) in [
        ("words=", "invalid_request"),
        ("", "invalid_request"),
        ("words=x&limit=0", "invalid_request"),
        ("words=x&limit=201", "invalid_request"),
        ("words=x&state=lost", "invalid_request"),
        ("words=x&since=march", "invalid_request"),
        ("words=x&peer=no%20body", "invalid_id"),
    ] {
        assert_eq!(http.get(&format!("/v1/search?{query}")).code(), code, "{query}");
    }
    assert_eq!(http.get(&format!("/v1/search?words={}", "x+".repeat(40))).code(), "invalid_request");
}

#[test]
fn index_is_made_anew_when_it_is_gone_or_damaged() {
    let (broker, _) = with_messages(&["needle in the hay"]);
    let http = broker.http();
    assert_eq!(found(&http, "needle").len(), 1);
    let path = index(&broker);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::remove_file(&path).unwrap();
    assert_eq!(found(&http, "needle").len(), 1, "gone");
    let sound = fs::read(&path).unwrap();
    let mut random = Random::seeded();
    for page in 0..sound.len() / 4096 {
        let mut bytes = sound.clone();
        let from = page * 4096 + if page == 0 { 100 } else { 0 };
        bytes[from..(page + 1) * 4096].fill_with(|| random.below(256) as u8);
        fs::write(&path, bytes).unwrap();
        send(&http, "shop", &format!("needle {page}"));
        assert_eq!(found(&http, "needle").len(), page + 2, "page {page} is damaged");
        fs::write(&path, &sound).unwrap();
    }
    fs::write(&path, &sound[..sound.len() / 2]).unwrap();
    assert!(!found(&http, "needle").is_empty(), "cut");
}

#[test]
fn index_of_another_database_is_not_used() {
    let (mut broker, _) = with_messages(&["needle of the old database"]);
    assert_eq!(found(&broker.http(), "needle").len(), 1);
    broker.terminate();
    let old = fs::read(broker.database()).unwrap();
    broker.launch();
    send(&broker.http(), "shop", "needle after the copy");
    assert_eq!(found(&broker.http(), "needle").len(), 2);
    // The copy comes back into the same file, and other messages get the same numbers.
    broker.terminate();
    fs::write(broker.database(), old).unwrap();
    broker.launch();
    send(&broker.http(), "shop", "thread and needle");
    assert_eq!(found(&broker.http(), "thread"), ["thread and needle"]);
    assert_eq!(found(&broker.http(), "copy"), Vec::<String>::new());
}

#[test]
fn index_of_an_older_version_is_made_anew() {
    let (broker, _) = with_messages(&["needle in the hay"]);
    let http = broker.http();
    assert_eq!(found(&http, "needle").len(), 1);
    let older = rusqlite::Connection::open(index(&broker)).unwrap();
    let tables = "BEGIN;
        UPDATE source SET database = '1' || substr(database, instr(database, ' '));
        DROP TABLE words;
        DROP TABLE sent;
        CREATE VIRTUAL TABLE words USING fts5 (text, content = '', contentless_delete = 1);
        COMMIT";
    older.execute_batch(tables).unwrap();
    drop(older);
    send(&http, "shop", "hay without it");
    for (words, count) in [("needle", 1), ("hay", 2), ("h*", 2), ("without", 1)] {
        assert_eq!(found(&http, words).len(), count, "{words}");
    }
}

#[test]
fn sends_do_not_wait_for_the_index() {
    let (broker, _) = with_messages(&["needle in the hay"]);
    let http = broker.http();
    assert_eq!(found(&http, "needle").len(), 1);
    let held = rusqlite::Connection::open(index(&broker)).unwrap();
    held.execute_batch("BEGIN EXCLUSIVE").unwrap();
    send(&http, "shop", "a needle while the index is locked");
    held.execute_batch("COMMIT").unwrap();
    assert_eq!(found(&http, "needle").len(), 2);
}

/// A message as a test stores it: its text, which says `common`, its word, and more; its parties as places in a list.
struct Stored {
    text: String,
    word: u64,
    parties: [usize; 2],
    state: usize,
    sent_at: i64,
}

/// Stores messages of the last hour between `ids`, sent by a clock that was set back and forth.
fn fill(database: &Path, ids: [&str; 3], now: i64, random: &mut Random) -> Vec<Stored> {
    let mut connection = rusqlite::Connection::open(database).unwrap();
    let tx = connection.transaction().unwrap();
    let stored = (0..2_500).map(|number| {
        let [word, from, to, state, back] = [30, 3, 3, 4, 100_000].map(|below| random.below(below));
        let (parties, state) = ([from, to].map(|party| party as usize), state as usize);
        let text = format!("common w{word} {number}");
        let sent_at = now - 2_500_000 + number * 1_000 - back as i64;
        let sql = "INSERT INTO message (tag, from_peer, to_peer, text, sent_at, expires_at, state, waiting)
                   VALUES ('abcdef', ?1, ?2, ?3, ?4, ?5, ?6, 0)";
        let [from, to] = parties.map(|party| ids[party]);
        tx.execute(sql, (from, to, &text, sent_at, now + 86_400_000, state as i64)).unwrap();
        Stored { text, word, parties, state, sent_at }
    });
    let stored = stored.collect();
    tx.commit().unwrap();
    stored
}

#[test]
fn filters_leave_out_nothing_in_a_long_history() {
    let (mut broker, [shop, web]) = with_messages(&[]);
    let ids = [shop.id.as_str(), web.id.as_str(), "cli"];
    let (mut random, now) = (Random::seeded(), chrono::Utc::now().timestamp_millis());
    broker.terminate();
    let stored = fill(&broker.database(), ids, now, &mut random);
    broker.launch();
    let time =
        |millis: i64| chrono::DateTime::from_timestamp_millis(millis).unwrap().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    for _ in 0..200 {
        let word = random.below(30);
        let [peer, repo, state, spans] = [4, 3, 5, 4].map(|below| random.below(below) as usize);
        let since = now - random.below(2_700_000) as i64;
        let (since, before) = (Some(since).filter(|_| spans & 1 == 1), Some(since + 500_000).filter(|_| spans & 2 == 2));
        let (peer, repo) = (Some(peer).filter(|peer| *peer < 3), Some(repo).filter(|repo| *repo < 2));
        let filters = [
            peer.map(|peer| format!("&peer={}", ids[peer])),
            repo.map(|repo| format!("&repo={}", ["shop", "web"][repo])),
            ["queued", "offered", "delivered", "expired"].get(state).map(|name| format!("&state={name}")),
            since.map(|since| format!("&since={}", time(since))),
            before.map(|before| format!("&before={}", time(before))),
        ];
        let query = format!("words=common+w{word}&limit=200{}", filters.into_iter().flatten().collect::<String>());
        let passes = |message: &&Stored| {
            message.word == word
                && [peer, repo].into_iter().flatten().all(|party| message.parties.contains(&party))
                && (state == 4 || message.state == state)
                && since.is_none_or(|since| message.sent_at >= since)
                && before.is_none_or(|before| message.sent_at < before)
        };
        let mut expected: Vec<&str> = stored.iter().filter(passes).map(|message| message.text.as_str()).collect();
        let mut found = texts(&page(&broker.http(), &query));
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "{query}");
    }
}

#[test]
fn foreign_file_is_left_alone() {
    let (mut broker, _) = with_messages(&[]);
    let path = index(&broker);
    broker.terminate();
    fs::write(&path, "somebody's notes").unwrap();
    broker.launch();
    let answer = broker.http().get("/v1/search?words=x");
    assert_eq!((answer.status, answer.code().as_str()), (500, "internal"));
    assert!(answer.body.contains("peers.db-search") && answer.body.contains("move that file away"), "{}", answer.body);
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's notes");
    send(&broker.http(), "shop", "all else goes on");
}

#[test]
fn pipe_in_place_of_the_index_blocks_nobody() {
    let (mut broker, _) = with_messages(&[]);
    let path = index(&broker);
    broker.terminate();
    drop(fs::remove_file(&path));
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    broker.launch();
    let answer = broker.http().get("/v1/search?words=x");
    assert!(answer.status == 500 && answer.body.contains("peers.db-search"), "{}", answer.body);
    assert!(broker.terminate().success());
}

#[test]
fn removed_messages_are_forgotten() {
    let (mut broker, [shop, _]) = with_messages(&["an unforgettable word"]);
    assert_eq!(found(&broker.http(), "unforgettable").len(), 1);
    let taken = shop.over(&broker.http()).post("/v1/take", &json!({"lease": "lease", "route": "check_messages"})).json();
    let delivered = json!({"id": taken["messages"][0]["id"], "outcome": "delivered", "lease": "lease"});
    shop.over(&broker.http()).post("/v1/acknowledge", &json!({"route": "check_messages", "messages": [delivered]})).json();
    broker.terminate();
    let age = "UPDATE message SET sent_at = 1, delivered_at = 1";
    rusqlite::Connection::open(broker.database()).unwrap().execute_batch(age).unwrap();
    broker.launch();
    eventually("its words are forgotten", || {
        let index = rusqlite::Connection::open(index(&broker)).unwrap();
        let words: i64 = index.query_row("SELECT count(*) FROM words_docsize", [], |row| row.get(0)).unwrap_or(1);
        (words == 0).then_some(())
    });
    assert_eq!(found(&broker.http(), "unforgettable"), Vec::<String>::new());
}

#[test]
fn command_line_searches() {
    let (broker, _) = with_messages(&["Which port does the API use?", "unrelated"]);
    let (code, page) = broker.cli_json(&["search", "port", "api", "--peer", "shop", "--since", "1h", "--repo", "web"]);
    assert_eq!((code, texts(&page)), (0, vec!["Which port does the API use?".to_owned()]));
    let output = broker.cli(&["search", "port"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().nth(1).unwrap().contains("Which port does the API use?") && text.lines().count() == 2, "{text}");
    assert_eq!(texts(&broker.cli_json(&["search", "port", "--since", "2020-01-31", "--before", "2999-01-01"]).1).len(), 1);
    assert_eq!(broker.cli(&["search", "port", "--since", "2020-02-31"]).output().unwrap().status.code(), Some(2));
    assert_eq!(broker.cli(&["search", "!!"]).output().unwrap().status.code(), Some(2));
    assert_eq!(broker.cli(&["search"]).output().unwrap().status.code(), Some(2));
}
