//! What the link to another machine costs: `cargo bench --features link --bench link [-- latency durable idle]`. Needs `nats-server`.
//!
//! Method: the real programs of two machines and one hub, all on this host and on the disk of `CLAUDE_PEERS_BENCH_DIR` (this folder's
//! `target/` by default). What is compared is taken in turns, in one run.
//!
//! - *Send → pushed*: as in `benches/figures.rs`, from the call of `send_message` to the notification, on one machine and from one to
//!   the other. An acknowledgement of JetStream is what a bare publisher waits for, with a payload of the same size in a stream like the link's.
//! - *Durable sends*: 64 senders on one machine, each with a connection of its own and one peer of the other machine to write to. The time
//!   runs from the first send until the hub has all, and until the other machine's broker has all. The bare publisher has 64 tasks, each of
//!   which waits for every acknowledgement.
//! - *Idle*: the link's memory, and its processor time by the kernel's count in nanoseconds.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]
#![allow(dead_code, unused_imports, reason = "shares the tests' support code")]

#[path = "../tests/link/admin.rs"]
mod admin;
#[path = "../tests/link/hub.rs"]
mod hub;
#[path = "../tests/suite/support/mod.rs"]
mod support;
#[path = "../tests/link/world.rs"]
mod world;

use async_nats::jetstream;
use bytes::Bytes;
use futures_util::StreamExt;
use hub::Hub;
use serde_json::json;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use support::{Session, events::Peer, eventually};
use tokio::{runtime::Runtime, task::JoinSet};
use world::Machine;

/// Samples of the latency figure.
const MESSAGES: usize = 500;
/// Senders at once, and what each sends through the link and as a bare publisher.
const SENDERS: usize = 64;
const EACH: usize = 100;
const EACH_BARE: usize = 500;
/// Remote peers and window of the idle figure.
const PEERS: usize = 100;
const IDLE_WINDOW: Duration = Duration::from_secs(10);
/// No limit stands in the way of a benchmark.
const UNLIMITED: [(&str, &str); 2] = [("CLAUDE_PEERS_RATE_LIMIT", "0"), ("CLAUDE_PEERS_WAITING_LIMIT", "10000000")];
/// The bare publisher's stream.
const BARE: (&str, &str) = ("bare", "bare.>");

fn main() {
    place_on_disk();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    println!("| figure | measured | bound |\n|---|---|---|");
    for (name, figure) in [("latency", latency as fn()), ("durable", durable), ("idle", idle)] {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            figure();
        }
    }
}

/// Puts the folders of all programs on one disk, by `TMPDIR` of a process in this one's place.
fn place_on_disk() {
    if std::env::var_os("CLAUDE_PEERS_BENCH_PLACED").is_some() {
        return;
    }
    let disk =
        std::env::var_os("CLAUDE_PEERS_BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    fs::create_dir_all(&disk).unwrap();
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(std::env::args_os().skip(1)).env("TMPDIR", disk).env("CLAUDE_PEERS_BENCH_PLACED", "1");
    std::process::exit(again.status().unwrap().code().unwrap_or(1));
}

fn row(figure: &str, measured: &str, bound: &str) {
    println!("| {figure} | {measured} | {bound} |");
}

fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

fn ms(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1_000.0)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A hub with two linked machines.
fn two_machines() -> (Hub, Machine, Machine) {
    let hub = Hub::start();
    let machine = |name| Machine::linked_with(name, &hub, &UNLIMITED);
    let (laptop, desktop) = (machine("laptop"), machine("desktop"));
    (hub, laptop, desktop)
}

/// Two sessions, one of which writes to the other.
struct Pair {
    sender: Session,
    recipient: Session,
    to: String,
}

impl Pair {
    /// One message: from just before the call is written until the notification has been read.
    fn send(&mut self, number: usize) -> Duration {
        let text = format!("message {number:06}: {}", "x".repeat(200));
        let arguments = json!({"targetPeerId": self.to, "message": text});
        let begun = Instant::now();
        let id = self.sender.ask("tools/call", json!({"name": "send_message", "arguments": arguments}));
        self.recipient.pushed();
        let time = begun.elapsed();
        self.sender.answer(id);
        time
    }
}

/// A session in a folder with this name.
fn session(machine: &Machine, place: &Path, name: &str) -> Session {
    let directory = place.join(name);
    fs::create_dir(&directory).unwrap();
    let mut session = Session::start(&machine.broker, &directory, name);
    session.id();
    session
}

/// Send → pushed from one machine to the other, beside the same on one machine and the hub's acknowledgement.
fn latency() {
    let (hub, laptop, desktop) = two_machines();
    // Outside of this repository, which would give the sessions its name.
    let place = support::folder_in(Path::new("/tmp"));
    let at = |machine: &Machine, name: &str| session(machine, place.path(), name);
    let mut remote = Pair { sender: at(&laptop, "web"), recipient: at(&desktop, "api"), to: "api@desktop".to_owned() };
    let mut local = Pair { sender: at(&laptop, "ask"), recipient: at(&laptop, "answer"), to: "answer".to_owned() };
    laptop.sees("api@desktop");
    let runtime = runtime();
    let _inside = runtime.enter();
    let client = runtime.block_on(admin::connect(&hub, &[hub.address()]));
    let payload = payload(&runtime, &client, || _ = remote.send(0));
    runtime.block_on(admin::create_stream(&client, BARE.0, BARE.1, 1));
    let context = jetstream::new(client);
    let mut samples = [Vec::new(), Vec::new(), Vec::new()];
    for number in 1..=MESSAGES {
        samples[0].push(remote.send(number));
        samples[1].push(local.send(number));
        samples[2].push(runtime.block_on(acknowledged(&context, &payload)));
    }
    let [remote, local, acknowledgement] = samples.each_mut().map(|samples| median(samples));
    let bound = local + 2 * acknowledgement + Duration::from_millis(2);
    row("send → pushed on one machine, median", &ms(local), "");
    row(&format!("one JetStream acknowledgement, {} bytes, median", payload.len()), &ms(acknowledgement), "");
    row("send → pushed on another machine, median", &ms(remote), &ms(bound));
}

/// What the link publishes when `send` sends a message.
fn payload(runtime: &Runtime, client: &async_nats::Client, send: impl FnOnce()) -> Bytes {
    let mut published = runtime.block_on(client.subscribe("claude-peers.*.mail.*")).unwrap();
    runtime.block_on(client.flush()).unwrap();
    send();
    runtime.block_on(published.next()).unwrap().payload
}

/// Publishes as a bare client does, and waits for the acknowledgement.
async fn acknowledged(context: &jetstream::Context, payload: &Bytes) -> Duration {
    let begun = Instant::now();
    context.publish("bare.message", payload.clone()).await.unwrap().await.unwrap();
    begun.elapsed()
}

/// Durable sends a second through the hub, beside those of a bare publisher.
fn durable() {
    let (hub, laptop, desktop) = two_machines();
    let register = |machine: &Machine, number: usize| {
        let facts = json!({"cwd": format!("/src/{}-{number}", machine.name)});
        Peer::register(&machine.broker.http(), &format!("bench-{number}"), facts)
    };
    let senders: Vec<Peer> = (0..SENDERS).map(|number| register(&laptop, number)).collect();
    let recipients: Vec<Peer> = (0..SENDERS).map(|number| register(&desktop, number)).collect();
    let _streams: Vec<_> = recipients.iter().map(|peer| peer.follow(&desktop.broker.http())).collect();
    recipients.iter().for_each(|peer| drop(laptop.sees(&format!("{}@desktop", peer.name))));

    let runtime = runtime();
    let _inside = runtime.enter();
    let client = runtime.block_on(admin::connect(&hub, &[hub.address()]));
    let to = format!("{}@desktop", recipients[0].name);
    let first = || send_many(&laptop.broker.socket(), &senders[0].secret, &to, 0..1);
    let payload = payload(&runtime, &client, first);
    runtime.block_on(admin::create_stream(&client, BARE.0, BARE.1, 1));
    let context = jetstream::new(client);
    let before = runtime.block_on(bare_rate(&context, &payload));

    let begun = Instant::now();
    let all = i64::try_from(SENDERS * EACH).unwrap() + 1;
    let (accepted, forwarded, received) = std::thread::scope(|scope| {
        let sends: Vec<_> = senders
            .iter()
            .zip(&recipients)
            .map(|(sender, recipient)| {
                let (socket, to) = (laptop.broker.socket(), format!("{}@desktop", recipient.name));
                scope.spawn(move || send_many(&socket, &sender.secret, &to, 1..EACH + 1))
            })
            .collect();
        let received = scope.spawn(|| {
            once(&desktop, &format!("SELECT count(*) = {all} FROM message"));
            begun.elapsed()
        });
        sends.into_iter().for_each(|send| send.join().unwrap());
        let accepted = begun.elapsed();
        once(&laptop, "SELECT count(*) = 0 FROM message WHERE link > 0 AND waiting = 1");
        (accepted, begun.elapsed(), received.join().unwrap())
    });
    let after = runtime.block_on(bare_rate(&context, &payload));
    let bare = f64::midpoint(before, after);
    let rate = |time: Duration| (SENDERS * EACH) as f64 / time.as_secs_f64();
    let measured = |time| format!("{:.0} a second ({:.2} × bare)", rate(time), rate(time) / bare);
    let bound = format!("{:.0} a second", bare / 2.0);
    row(
        &format!("bare publisher, 64 tasks, {} bytes, before and after", payload.len()),
        &format!("{before:.0} and {after:.0} a second"),
        "",
    );
    row("64 senders, accepted by the broker", &measured(accepted), "");
    row("64 senders, until the hub has all", &measured(forwarded), &bound);
    row("64 senders, until the other broker has all", &measured(received), &bound);
}

/// Waits until this query of the broker's database answers 1.
fn once(machine: &Machine, sql: &str) {
    while machine.broker.count(sql) != 1 {
        std::thread::sleep(Duration::from_millis(20)); // between two looks
    }
}

/// Sends numbered messages, each when the one before is answered, on one connection.
fn send_many(socket: &Path, secret: &str, to: &str, numbers: std::ops::Range<usize>) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for number in numbers {
        let body = json!({"to": to, "text": format!("message {number:06}: {}", "x".repeat(200)), "key": format!("{number:06}")})
            .to_string();
        let head = format!(
            "POST /v1/send HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {secret}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        read_answer(&mut answers);
    }
}

/// Reads an answer to its end; it must say yes.
fn read_answer(answers: &mut BufReader<UnixStream>) {
    let (mut line, mut length) = (String::new(), 0);
    answers.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    while line != "\r\n" {
        line.clear();
        answers.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    answers.read_exact(&mut vec![0; length]).unwrap();
}

/// Acknowledged messages a second of a bare publisher with as many tasks as there are senders.
async fn bare_rate(context: &jetstream::Context, payload: &Bytes) -> f64 {
    let begun = Instant::now();
    let mut publishers = JoinSet::new();
    for _ in 0..SENDERS {
        let (context, payload) = (context.clone(), payload.clone());
        publishers.spawn(async move {
            for _ in 0..EACH_BARE {
                acknowledged(&context, &payload).await;
            }
        });
    }
    publishers.join_all().await;
    (SENDERS * EACH_BARE) as f64 / begun.elapsed().as_secs_f64()
}

/// The link's memory and processor time while nothing happens, with 100 peers on the other machine.
fn idle() {
    let (_hub, laptop, desktop) = two_machines();
    let register = |number| {
        Peer::register(&desktop.broker.http(), &format!("bench-{number}"), json!({"cwd": format!("/src/peer-{number}")}))
    };
    let peers: Vec<Peer> = (0..PEERS).map(register).collect();
    let _streams: Vec<_> = peers.iter().map(|peer| peer.follow(&desktop.broker.http())).collect();
    eventually("the laptop sees all", || (laptop.everywhere().len() == PEERS).then_some(()));
    std::thread::sleep(Duration::from_secs(20)); // what led to this is over, as in benches/figures.rs
    for (of, pid) in [("that sees them", laptop.link_pid()), ("that tells of them", desktop.link_pid())] {
        let before = processor_time(pid);
        std::thread::sleep(IDLE_WINDOW);
        let used = processor_time(pid) - before;
        let memory = ["VmRSS:", "VmHWM:"].map(|what| mib(status(pid, what)));
        row(&format!("link {of}, 100 peers: memory (resident; most so far)"), &memory.join("; "), "12 MiB");
        row(&format!("link {of}, 100 peers: processor time, 10 s"), &format!("{:.4} s", used.as_secs_f64()), "0.02 s");
    }
}

fn status(pid: u32, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn mib(kib: u64) -> String {
    format!("{:.2} MiB", kib as f64 / 1_024.0)
}

fn processor_time(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: PathBuf| fs::read_to_string(task.join("schedstat")).ok()?.split_whitespace().next()?.parse::<u64>().ok();
    Duration::from_nanos(tasks.filter_map(|task| of(task.unwrap().path())).sum())
}
