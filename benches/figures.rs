//! Every figure of docs/benchmarks.md: `cargo bench --bench figures [-- NAME…]`.
//!
//! Method: the real programs, on their real sockets, as their users start them. A latency runs from just before the request is
//! written into one real MCP server's stdin until the notification has been read from another one's stdout, one message at
//! a time. Baselines (one fsynced commit) are taken in the same run on the same disk. Medians over all samples, no outlier
//! removed. The folder of the disk figures is `CLAUDE_PEERS_BENCH_DIR` (this folder's `target/` by default), of the RAM
//! figures `/dev/shm`.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]
#![allow(dead_code, unused_imports, reason = "shares the test suite's support code")]

#[path = "../tests/suite/support/mod.rs"]
mod support;

use rusqlite::{Connection, params};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use support::{Broker, Session, mcp::Start};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// Samples of the latency figures.
const MESSAGES: usize = 1_000;
/// Starts of an MCP server.
const STARTS: usize = 50;
/// Senders at once, and messages in all, of the throughput figure.
const SENDERS: usize = 64;
const DURABLE: usize = 64 * 1_000;
/// Stored messages of the history figure.
const STORED: usize = 1_000_000;
/// Connected peers of the broker's memory figure, sessions and window of the idle figure.
const PEERS: usize = 100;
const IDLE_SESSIONS: usize = 12;
const IDLE_WINDOW: Duration = Duration::from_secs(10);
/// No limit stands in the way of a benchmark.
const UNLIMITED: [(&str, &str); 2] = [("CLAUDE_PEERS_RATE_LIMIT", "0"), ("CLAUDE_PEERS_WAITING_LIMIT", "10000000")];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let figures: [(&str, fn()); 7] = [
        ("start", start),
        ("memory", memory),
        ("latency-disk", || latency("latency-disk", &disk())),
        ("latency-ram", || latency("latency-ram", Path::new("/dev/shm"))),
        ("durable", durable),
        ("idle", idle),
        ("history", history),
    ];
    println!("| figure | measured |\n|---|---|");
    for (name, figure) in figures {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            figure();
        }
    }
}

fn row(figure: &str, measured: &str) {
    println!("| {figure} | {measured} |");
}

fn disk() -> PathBuf {
    let here =
        std::env::var_os("CLAUDE_PEERS_BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    fs::create_dir_all(&here).unwrap();
    here
}

/// A broker whose folder lies under `place`.
fn broker_on(place: &Path) -> Broker {
    let mut broker = Broker::prepared_in(place, &UNLIMITED);
    broker.launch();
    broker
}

fn median(samples: &mut [Duration]) -> Duration {
    percentile(samples, 50)
}

fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    samples[(samples.len() * percent / 100).min(samples.len() - 1)]
}

fn ms(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1_000.0)
}

/// MCP server: from just before the process is made until `initialize` is answered.
fn start() {
    let broker = Broker::with(&UNLIMITED);
    let folder = support::folder();
    let mut samples: Vec<Duration> = (0..STARTS)
        .map(|number| {
            let begun = Instant::now();
            let command = Start {
                broker: &broker,
                directory: folder.path(),
                session_id: &format!("start-{number}"),
                delivery: "channel",
                env: Vec::new(),
            };
            let mut session = Session::spawn(command.command());
            let id = session.ask(
                "initialize",
                json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "claude-code", "version": "1"}}),
            );
            session.answer(id);
            let time = begun.elapsed();
            session.close();
            time
        })
        .collect();
    row("MCP server: start to `initialize` answered, median", &ms(median(&mut samples)));
}

/// Memory: of an MCP server connected and idle, alone and as one of 100; of the broker with 100 connected peers.
fn memory() {
    let broker = Broker::with(&UNLIMITED);
    let folder = support::folder();
    let mut sessions = vec![Session::start(&broker, folder.path(), "memory-0")];
    sessions[0].id();
    acknowledge_down();
    row("MCP server: memory (PSS), connected and idle, alone on the machine", &mib(pss(sessions[0].pid())));
    for number in 1..PEERS {
        let mut session = Session::start(&broker, folder.path(), &format!("memory-{number}"));
        session.id();
        sessions.push(session);
    }
    acknowledge_down();
    let all: u64 = sessions.iter().map(|session| pss(session.pid())).sum();
    row("MCP server: memory (PSS), one of 100", &mib(all / PEERS as u64));
    row("broker: memory (PSS) with 100 connected peers", &mib(pss(broker.pid())));
}

/// Lets what was started beside the sessions (summaries made by git) end, before memory and idle time are read.
fn acknowledge_down() {
    std::thread::sleep(Duration::from_secs(3));
}

fn pss(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn mib(kib: u64) -> String {
    format!("{:.2} MiB", kib as f64 / 1_024.0)
}

/// Send → pushed, one message at a time, beside one fsynced commit of such a row on the same disk.
fn latency(name: &str, place: &Path) {
    let mut commits = commits(place);
    let commit = median(&mut commits);
    let broker = broker_on(place);
    let mut samples = exchange(&broker);
    let (typical, worst) = (median(&mut samples), percentile(&mut samples, 99));
    row(&format!("{name}: one fsynced SQLite commit, median"), &ms(commit));
    row(&format!("{name}: send → pushed, median"), &format!("{} (commit + {})", ms(typical), ms(typical.saturating_sub(commit))));
    let factor = worst.as_secs_f64() / typical.as_secs_f64();
    row(&format!("{name}: send → pushed, 99th percentile"), &format!("{} ({factor:.1} × the median)", ms(worst)));
}

fn commits(place: &Path) -> Vec<Duration> {
    let folder = tempfile::tempdir_in(place).unwrap();
    let connection = Connection::open(folder.path().join("commits.db")).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.pragma_update(None, "synchronous", "full").unwrap();
    connection.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)").unwrap();
    let mut insert = connection.prepare("INSERT INTO t (text) VALUES (?1)").unwrap();
    let text = "x".repeat(200);
    let commit = |_| {
        let begun = Instant::now();
        insert.execute([&text]).unwrap();
        begun.elapsed()
    };
    (0..MESSAGES).map(commit).collect()
}

/// Times from a tool call on one session to the notification on another.
fn exchange(broker: &Broker) -> Vec<Duration> {
    let mut pair = Pair::talking(broker);
    (0..MESSAGES).map(|number| pair.send(number)).collect()
}

/// Two sessions of a broker, one of which writes to the other.
struct Pair {
    sender: Session,
    recipient: Session,
    to: String,
}

impl Pair {
    /// Two sessions that have exchanged a question and an answer: the recipient's channel has proved itself.
    fn talking(broker: &Broker) -> Self {
        let folder = support::folder();
        let mut sender = Session::start(broker, folder.path(), "latency-a");
        let mut recipient = Session::start(broker, folder.path(), "latency-b");
        let (from, to) = (sender.id(), recipient.id());
        let sent = sender.send(&to, "are you there?");
        recipient.pushed();
        recipient.tool("send_message", json!({"targetPeerId": from, "message": "yes", "replyTo": sent["messageId"]}));
        sender.pushed();
        acknowledge_down();
        Self { sender, recipient, to }
    }

    /// One message: from just before the call is written until the notification has been read.
    fn send(&mut self, number: usize) -> Duration {
        let text = format!("message {number}: {}", "x".repeat(200));
        let arguments = json!({"targetPeerId": self.to, "message": text});
        let begun = Instant::now();
        let id = self.sender.ask("tools/call", json!({"name": "send_message", "arguments": arguments}));
        self.recipient.pushed();
        let time = begun.elapsed();
        self.sender.answer(id);
        time
    }
}

/// Durable sends through the API: 64 senders at once, each on a connection of its own, each waiting for its answer.
fn durable() {
    let broker = broker_on(&disk());
    let register = |number: usize| {
        let body = json!({
            "client": {"name": "bench", "version": "1"}, "instance": format!("bench-{number}"), "sessionId": format!("bench-{number}"),
            "pid": std::process::id(), "cwd": "/tmp",
        });
        let answer = broker.http().post("/v1/register", &body).json();
        (answer["id"].as_str().unwrap().to_owned(), answer["secret"].as_str().unwrap().to_owned())
    };
    let peers: Vec<(String, String)> = (0..SENDERS).map(register).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begun = Instant::now();
    runtime.block_on(async {
        let mut senders = tokio::task::JoinSet::new();
        for (number, (_, secret)) in peers.iter().enumerate() {
            let to = peers[(number + 1) % SENDERS].0.clone();
            senders.spawn(send_many(broker.socket(), secret.clone(), to, DURABLE / SENDERS));
        }
        while let Some(sender) = senders.join_next().await {
            sender.unwrap();
        }
    });
    let time = begun.elapsed();
    let rate = DURABLE as f64 / time.as_secs_f64();
    let commit = median(&mut commits(&disk()));
    row(
        "durable sends, 64 concurrent senders",
        &format!("{rate:.0} a second ({:.1} × one commit a message)", rate * commit.as_secs_f64()),
    );
}

async fn send_many(socket: PathBuf, secret: String, to: String, count: usize) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let mut buffer = vec![0; 4_096];
    for number in 0..count {
        let body = json!({"to": to, "text": format!("message {number}: {}", "x".repeat(200)), "key": format!("{number:08}")})
            .to_string();
        let request = format!(
            "POST /v1/send HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {secret}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut filled = 0;
        loop {
            filled += stream.read(&mut buffer[filled..]).await.unwrap();
            if is_whole(&buffer[..filled]) {
                break;
            }
        }
    }
}

/// Whether an answer has arrived to its end; it must say yes.
fn is_whole(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes).unwrap();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    assert!(head.starts_with("HTTP/1.1 200"), "{text}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    body.len() >= length.parse::<usize>().unwrap()
}

/// Processor time of 12 idle sessions and the broker, over ten seconds, by the kernel's count in nanoseconds.
fn idle() {
    let broker = Broker::with(&UNLIMITED);
    let folder = support::folder();
    let mut sessions: Vec<Session> =
        (0..IDLE_SESSIONS).map(|number| Session::start(&broker, folder.path(), &format!("idle-{number}"))).collect();
    sessions.iter_mut().for_each(|session| drop(session.id()));
    // Kept-alive connections of the last calls are closed after 15 s; that is part of becoming idle.
    std::thread::sleep(Duration::from_secs(20));
    let pids: Vec<u32> = sessions.iter().map(Session::pid).chain([broker.pid()]).collect();
    let all = || pids.iter().map(|pid| processor_time(*pid)).sum::<Duration>();
    let before = all();
    std::thread::sleep(IDLE_WINDOW);
    let used = all() - before;
    row("processor time, 12 idle sessions and the broker, 10 s", &format!("{:.4} s", used.as_secs_f64()));
}

fn processor_time(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: PathBuf| fs::read_to_string(task.join("schedstat")).ok()?.split_whitespace().next()?.parse::<u64>().ok();
    Duration::from_nanos(tasks.filter_map(|task| of(task.unwrap().path())).sum())
}

/// Send → pushed with a million stored messages, against an empty database, in turn.
fn history() {
    let place = disk();
    let empty = broker_on(&place);
    let mut full = broker_on(&place);
    full.terminate();
    fill(&full.database());
    full.launch();
    let (mut on_empty, mut on_full) = (Pair::talking(&empty), Pair::talking(&full));
    // Message by message in turn: whatever else the machine does, it does to both.
    let (mut without, mut with): (Vec<Duration>, Vec<Duration>) =
        (0..MESSAGES).map(|number| (on_empty.send(number), on_full.send(number))).unzip();
    let (without, with) = (median(&mut without), median(&mut with));
    let factor = with.as_secs_f64() / without.as_secs_f64();
    row("send → pushed with 1,000,000 stored messages", &format!("{} ({factor:.2} × {} with none)", ms(with), ms(without)));
}

fn fill(database: &Path) {
    let mut connection = Connection::open(database).unwrap();
    let tx = connection.transaction().unwrap();
    let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap();
    {
        let sql = "INSERT INTO message (tag, from_peer, to_peer, text, key, sent_at, expires_at, state, waiting, route, offered_at, delivered_at)
                   VALUES ('abcdef', ?1, ?2, ?3, ?4, ?5, ?5, 2, 0, 'reply', ?5, ?5)";
        let mut insert = tx.prepare(sql).unwrap();
        let text = "x".repeat(200);
        for number in 0..STORED {
            let (from, to) = (format!("peer{:02}", number % 50), format!("peer{:02}", (number + 1) % 50));
            insert.execute(params![from, to, text, format!("{number:012}"), now]).unwrap();
        }
    }
    tx.commit().unwrap();
}
