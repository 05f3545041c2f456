//! Search, history and a scrape of the metrics over many stored messages: `cargo bench --bench stored`.
//!
//! `CLAUDE_PEERS_BENCH_MESSAGES` is their number; the default is small, and the figures of docs/benchmarks.md are for a million.
//! Method: a real broker answers each request over a new connection to its Unix socket. The texts have 30 words of a vocabulary
//! of 20,000, in which a word is the rarer the later it comes, as in a language. They are made by a fixed sequence, so every run has
//! the same. The folder is `CLAUDE_PEERS_BENCH_DIR` (this folder's `target/` by default).

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]
#![allow(dead_code, unused_imports, reason = "shares the test suite's support code")]

#[path = "../tests/suite/support/mod.rs"]
mod support;

use rusqlite::{Connection, params};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use support::{Broker, events::Peer};

const SMALL: i64 = 10_000;
/// How often each request is made.
const TIMES: usize = 100;
const PEERS: usize = 50;
/// How many of them share a repository.
const TOGETHER: usize = 5;
/// One in so many messages was not delivered.
const UNDELIVERED: i64 = 499;
const DAY: i64 = 86_400_000;
/// Words of a text, and words that there are.
const WORDS: u64 = 30;
const VOCABULARY: f64 = 20_000.0;
/// The time over which the messages were sent: less than history is kept.
const SPAN: i64 = 28 * DAY;

fn main() {
    let messages = std::env::var("CLAUDE_PEERS_BENCH_MESSAGES").map_or(SMALL, |count| count.parse().expect("a number"));
    let place = std::env::var_os("CLAUDE_PEERS_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    std::fs::create_dir_all(&place).unwrap();
    let mut broker = Broker::prepared_in(&place, &[]);
    broker.launch();
    let http = broker.http();
    let peers: Vec<String> = (0..=PEERS)
        .map(|number| {
            let repo = if number < TOGETHER { "shop".to_owned() } else { format!("p{number}") };
            let git = json!({"commonDir": format!("/src/{repo}/.git"), "head": format!("/src/{repo}/.git/HEAD"), "repo": repo});
            Peer::register(&http, &format!("peer-{number}"), json!({"cwd": format!("/src/p{number}"), "git": git})).id
        })
        .collect();
    broker.terminate();
    fill(&broker.database(), messages, &peers);
    broker.launch();
    println!("| with {messages} stored messages | median | worst of {TIMES} |\n|---|---|---|");
    let begun = Instant::now();
    let found = broker.http().get("/v1/search?words=w1").json()["messages"].as_array().unwrap().len();
    println!("| first search, which makes the index | {} | |", ms(begun.elapsed()));
    assert_eq!(found, 20);
    let (peer, quiet, middle) = (&peers[7], &peers[PEERS], format!("m{}-abcdef", messages / 2));
    let [hour, week, three_weeks] = [DAY / 24, 7 * DAY, 21 * DAY].map(|ago| rfc3339(now() - ago));
    let requests = [
        ("search: a word of seven messages in ten", "/v1/search?words=w1".to_owned()),
        ("search: a word of one message in 100", "/v1/search?words=w300".to_owned()),
        ("search: a word of one message in 5,000", "/v1/search?words=w15000".to_owned()),
        ("search: a word that is nowhere", "/v1/search?words=nowhere".to_owned()),
        ("search: two frequent words", "/v1/search?words=w1+w2".to_owned()),
        ("search: three words", "/v1/search?words=w1+w40+w300".to_owned()),
        ("search: eight frequent words", "/v1/search?words=w1+w2+w3+w4+w5+w6+w7+w8".to_owned()),
        ("search: two words as a phrase", "/v1/search?words=%22w1+w2%22".to_owned()),
        ("search: a beginning of one letter", "/v1/search?words=w*".to_owned()),
        ("search: a beginning of two letters", "/v1/search?words=w1*".to_owned()),
        ("search: a beginning of three letters", "/v1/search?words=w12*".to_owned()),
        ("search: a beginning of four letters", "/v1/search?words=w123*".to_owned()),
        ("search: a frequent word of one peer", format!("/v1/search?words=w1&peer={peer}")),
        ("search: a beginning of three letters, of one peer", format!("/v1/search?words=w12*&peer={peer}")),
        ("search: a beginning of four letters, of one peer", format!("/v1/search?words=w123*&peer={peer}")),
        ("search: a frequent word of a peer without messages", format!("/v1/search?words=w1&peer={quiet}")),
        ("search: a frequent word of a repository of five peers", "/v1/search?words=w1&repo=shop".to_owned()),
        ("search: three words of a repository of five peers", "/v1/search?words=w1+w40+w300&repo=shop".to_owned()),
        ("search: a frequent word of the last week", format!("/v1/search?words=w1&since={week}")),
        ("search: a frequent word of the last hour", format!("/v1/search?words=w1&since={hour}")),
        ("search: a frequent word before the last three weeks", format!("/v1/search?words=w1&before={three_weeks}")),
        ("search: a frequent word in what is queued", "/v1/search?words=w1&state=queued".to_owned()),
        ("search: a frequent word in what is held", "/v1/search?words=w1&state=held".to_owned()),
        ("search: a frequent word in what is delivered", "/v1/search?words=w1&state=delivered".to_owned()),
        ("search: a frequent word in what has expired", "/v1/search?words=w1&state=expired".to_owned()),
        ("search: 200 results", "/v1/search?words=w1&limit=200".to_owned()),
        ("history: the newest 50", "/v1/history?limit=50".to_owned()),
        ("history: the newest 500", "/v1/history?limit=500".to_owned()),
        ("history: 50 in the middle", format!("/v1/history?limit=50&before={middle}")),
        ("history: the newest 50 of one peer", format!("/v1/history?limit=50&peer={peer}")),
        ("history: the oldest 50 of the last week", format!("/v1/history?limit=50&after=0&since={week}")),
        ("history: the newest 50 queued", "/v1/history?limit=50&state=queued".to_owned()),
        ("history: the newest 50 expired", "/v1/history?limit=50&state=expired".to_owned()),
        ("history: a conversation", format!("/v1/history?limit=50&thread={middle}")),
        ("one message", format!("/v1/messages/{middle}")),
        ("status", "/v1/status".to_owned()),
        ("metrics", "/metrics".to_owned()),
    ];
    for (name, path) in requests {
        let mut samples: Vec<Duration> = (0..TIMES)
            .map(|_| {
                let begun = Instant::now();
                let answer = broker.http().get(&path);
                let time = begun.elapsed();
                assert_eq!(answer.status, 200, "{path}: {}", answer.body);
                time
            })
            .collect();
        samples.sort_unstable();
        println!("| {name} | {} | {} |", ms(samples[TIMES / 2]), ms(samples[TIMES - 1]));
    }
    println!("\nThe broker's memory in the end: {} KiB resident", broker.memory());
    let size = |name: &str| std::fs::metadata(broker.database().with_file_name(name)).unwrap().len() / 1_000_000;
    println!("The database and its index: {} and {} MB", size("peers.db"), size("peers.db-search"));
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn rfc3339(millis: i64) -> String {
    chrono::DateTime::from_timestamp_millis(millis).unwrap().format("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

/// Numbers that look random, the same in each run.
struct Sequence(u64);

impl Sequence {
    /// The next number between 0 and 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX)
    }

    /// A text of words: the rank of each is spread evenly on a logarithmic scale.
    fn text(&mut self) -> String {
        (0..WORDS).map(|_| format!("w{:.0} ", VOCABULARY.powf(self.next()))).collect()
    }
}

/// Stores messages from each peer to the next.
fn fill(database: &Path, messages: i64, peers: &[String]) {
    let mut connection = Connection::open(database).unwrap();
    let tx = connection.transaction().unwrap();
    let now = now();
    {
        let sql = "INSERT INTO message (tag, from_peer, to_peer, text, sent_at, expires_at, state, waiting, route,
                                        delivered_at, expired_at)
                   VALUES ('abcdef', ?1, ?2, ?3, ?4, ?5, ?6, ?6 = 0, 'reply', iif(?6 = 2, ?4, NULL), iif(?6 = 3, ?5, NULL))";
        let mut insert = tx.prepare(sql).unwrap();
        let mut sequence = Sequence(1);
        for number in 0..messages {
            let from = usize::try_from(number).unwrap() % PEERS;
            let sent_at = now - SPAN + SPAN / messages * number;
            // One more day: nothing expires while the benchmark runs.
            let expires_at = sent_at + 8 * DAY;
            let state = if number % UNDELIVERED > 0 {
                2
            } else if expires_at > now {
                0
            } else {
                3
            };
            let (from, to) = (&peers[from], &peers[(from + 1) % PEERS]);
            insert.execute(params![from, to, sequence.text(), sent_at, expires_at, state]).unwrap();
        }
    }
    tx.commit().unwrap();
}
