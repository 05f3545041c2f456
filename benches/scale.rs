//! One hub with many machines: `cargo bench --features link --bench scale [-- 100 300 1000]`. Needs `nats-server`.
//!
//! Method: so many simulated machines run in this process, each with a key of its own in the hub's configuration and in the directory, a TLS
//! connection of its own, a link's subscriptions and ten peers. Each says every 5 seconds that it is there, and answers whoever asks who
//! is; it asks nobody. Beside them are two real machines, a laptop and a desktop, with their brokers and links. All of it shares this
//! host, so the simulation takes from the hub what on hosts of their own the machines would not.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]
#![allow(dead_code, unused_imports, reason = "shares the tests' support code")]

#[path = "../tests/link/hub.rs"]
mod hub;
#[path = "../tests/suite/support/mod.rs"]
mod support;
#[path = "../tests/link/world.rs"]
mod world;

use async_nats::{Client, ConnectOptions, Message, jetstream};
use futures_util::{StreamExt, stream};
use hub::Hub;
use nkeys::{KeyPair, XKey};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use support::Session;
use tokio::{
    runtime::Runtime,
    task::JoinSet,
    time::{MissedTickBehavior, interval_at},
};
use world::Machine;

/// Peers on each simulated machine.
const PEERS: usize = 10;
/// How often a machine says that it is there.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long what is steady is watched.
const WINDOW: Duration = Duration::from_secs(10);
/// Messages of the latency figure, and letters of each simulated machine, of which each has so many bytes.
const MESSAGES: usize = 100;
const LETTERS: usize = 20;
const LETTER: usize = 500;
/// No limit stands in the way of a benchmark.
const UNLIMITED: [(&str, &str); 2] = [("CLAUDE_PEERS_RATE_LIMIT", "0"), ("CLAUDE_PEERS_WAITING_LIMIT", "10000000")];
/// How long anything may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let wanted: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let wanted = if wanted.is_empty() { vec![100, 300, 1_000] } else { wanted };
    println!("| figure | measured |\n|---|---|");
    for machines in wanted {
        measure(machines);
    }
}

/// A simulated machine.
struct Simulated {
    name: String,
    login: KeyPair,
    seal: XKey,
}

/// What all of them share.
struct World {
    folder: PathBuf,
    address: String,
    seals: HashMap<String, XKey>,
    heard: AtomicU64,
}

impl Simulated {
    fn new(number: usize) -> Self {
        Self { name: format!("sim-{number}"), login: KeyPair::new_user(), seal: XKey::new() }
    }

    /// What the owner's file says of it.
    fn entry(&self) -> Value {
        let (login, seal) = (self.login.public_key(), self.seal.public_key());
        json!({"name": self.name, "login": login, "seal": seal, "joined": "2026-01-01T00:00:00.000Z"})
    }

    async fn connect(&self, world: &World) -> Client {
        let options = ConnectOptions::with_nkey(self.login.seed().unwrap()).custom_inbox_prefix(format!("_INBOX_{}", self.name));
        let options = options.add_root_certificates(world.folder.join("hub/ca.pem")).require_tls(true);
        options.connection_timeout(PATIENCE).connect(&world.address).await.unwrap()
    }

    /// Lives as a link does.
    async fn live(self, client: Client, world: Arc<World>, phase: Duration) {
        let subscribe = async |subject: String| client.subscribe(subject).await.unwrap();
        let mut alive = subscribe("claude-peers.*.alive".to_owned()).await;
        let mut asks = subscribe(format!("claude-peers.*.ask.{}", self.name)).await;
        let _peers = subscribe(format!("claude-peers.*.peers.{}", self.name)).await;
        let _directory = subscribe("claude-peers-directory".to_owned()).await;
        let mut ticks = interval_at(tokio::time::Instant::now() + phase, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => client.publish(format!("claude-peers.{}.alive", self.name), "v1".into()).await.unwrap(),
                Some(_) = alive.next() => {
                    world.heard.fetch_add(1, Ordering::Relaxed);
                }
                Some(question) = asks.next() => self.answer(&client, &world, &question).await,
            }
        }
    }

    async fn answer(&self, client: &Client, world: &World, question: &Message) {
        let from = question.subject.split('.').nth(1).unwrap();
        let peers: Vec<Value> = (0..PEERS)
            .map(|number| {
                let name = format!("{}-{number}", self.name);
                json!({"id": format!("{name}-id"), "name": name, "cwd": "/src/shop", "gitRepo": null, "gitBranch": null, "summary": ""})
            })
            .collect();
        let presence = json!({"question": String::from_utf8_lossy(&question.payload), "version": "v1", "peers": peers});
        let text = json!({"from": self.name, "to": from, "presence": presence}).to_string();
        let sealed = self.seal.seal(text.as_bytes(), &world.seals[from]).unwrap();
        client.publish(format!("claude-peers.{}.peers.{from}", self.name), sealed.into()).await.unwrap();
    }
}

/// The keys that all machines seal with, by the owner's file.
fn seals(folder: &Path) -> HashMap<String, XKey> {
    let owner: Value = serde_json::from_slice(&fs::read(folder.join("owner.json")).unwrap()).unwrap();
    let key = |entry: &Value| XKey::from_public_key(entry["seal"].as_str().unwrap()).unwrap();
    owner["machines"].as_array().unwrap().iter().map(|entry| (entry["name"].as_str().unwrap().to_owned(), key(entry))).collect()
}

fn measure(number: usize) {
    let row = |figure: &str, measured: String| println!("| {number} machines: {figure} | {measured} |");
    let mut hub = Hub::set_up();
    let simulated: Vec<Simulated> = (0..number).map(Simulated::new).collect();
    let file = hub.folder().join("owner.json");
    let mut owner: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    owner["machines"] = simulated.iter().map(Simulated::entry).collect();
    fs::write(&file, owner.to_string()).unwrap();
    // What is written by the first invitation lets them all in.
    hub.launch();
    let begun = Instant::now();
    let mut laptop = Machine::linked_with("laptop", &hub, &UNLIMITED);
    let desktop = Machine::linked_with("desktop", &hub, &UNLIMITED);
    row("two more join", seconds(begun.elapsed()));

    let world =
        Arc::new(World { folder: hub.folder(), address: hub.address(), seals: seals(&hub.folder()), heard: AtomicU64::new(0) });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let names: Vec<String> = simulated.iter().map(|machine| machine.name.clone()).collect();
    let begun = Instant::now();
    let clients = start(&runtime, simulated, &world);
    row("all connect", seconds(begun.elapsed()));

    laptop.kill_link();
    laptop.broker.restart();
    let begun = Instant::now();
    laptop.link();
    once("the laptop sees everybody", || laptop.everywhere().len() >= number * PEERS);
    row(&format!("a machine that comes sees all {} peers", number * PEERS), seconds(begun.elapsed()));
    let place = support::folder();
    let mut web = session(&laptop, place.path(), "web");
    let begun = Instant::now();
    let mut api = session(&desktop, place.path(), "api");
    once("the laptop sees the new session", || laptop.everywhere().iter().any(|peer| peer["name"] == "api@desktop"));
    row("a new session is seen on another machine", seconds(begun.elapsed()));

    steady(&hub, &laptop, &world, &row);
    let mut times: Vec<Duration> = (0..MESSAGES).map(|number| send(&mut web, &mut api, number)).collect();
    times.sort_unstable();
    row("send → pushed on another machine, median; slowest", format!("{}; {}", ms(times[MESSAGES / 2]), ms(times[MESSAGES - 1])));
    let begun = Instant::now();
    runtime.block_on(write_letters(&clients, &names));
    let rate = (number * LETTERS) as f64 / begun.elapsed().as_secs_f64();
    row("letters stored on the hub, all machines at once", format!("{rate:.0} a second"));
    runtime.shutdown_background();
}

/// Connects the simulated machines and lets them live.
fn start(runtime: &Runtime, simulated: Vec<Simulated>, world: &Arc<World>) -> Vec<Client> {
    let number = simulated.len() as u32;
    runtime.block_on(async {
        let connect = |machine: Simulated| async move { (machine.connect(world).await, machine) };
        let connected: Vec<_> = stream::iter(simulated).map(connect).buffer_unordered(32).collect().await;
        let mut clients = Vec::new();
        for (place, (client, machine)) in (0..).zip(connected) {
            clients.push(client.clone());
            tokio::spawn(machine.live(client, world.clone(), INTERVAL * place / number));
        }
        clients
    })
}

/// What it costs while nothing happens.
fn steady(hub: &Hub, laptop: &Machine, world: &World, row: &dyn Fn(&str, String)) {
    let server = fs::read_to_string(hub.folder().join("hub/nats-server.pid")).unwrap().trim().parse().unwrap();
    let programs = [("hub", server), ("a link", laptop.link_pid()), ("its broker", laptop.broker.pid())];
    let heard = world.heard.load(Ordering::Relaxed);
    let (before, begun) = (programs.map(|(_, pid)| processor_time(pid)), Instant::now());
    std::thread::sleep(WINDOW);
    let share = |used: Duration| used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    for ((name, pid), before) in programs.iter().zip(before) {
        let used = processor_time(*pid) - before;
        row(&format!("{name}, nothing happens: of a core; resident memory"), format!("{:.1} %; {}", share(used), memory(*pid)));
    }
    let heard = world.heard.load(Ordering::Relaxed) - heard;
    row("heartbeats that the simulated machines hear", format!("{:.0} a second", heard as f64 / begun.elapsed().as_secs_f64()));
}

/// Each machine stores letters for the next, one after the other.
async fn write_letters(clients: &[Client], names: &[String]) {
    let mut writers = JoinSet::new();
    for (place, client) in clients.iter().enumerate() {
        let from = client_name(client);
        let to = names[(place + 1) % names.len()].clone();
        let context = jetstream::new(client.clone());
        writers.spawn(async move {
            for _ in 0..LETTERS {
                let stored = context.publish(format!("claude-peers.{from}.mail.{to}"), vec![0; LETTER].into()).await.unwrap();
                stored.await.unwrap();
            }
        });
    }
    writers.join_all().await;
}

/// The machine of this client, by the inbox that it has.
fn client_name(client: &Client) -> String {
    client.new_inbox().strip_prefix("_INBOX_").unwrap().split('.').next().unwrap().to_owned()
}

fn session(machine: &Machine, place: &Path, name: &str) -> Session {
    let directory = place.join(name);
    fs::create_dir(&directory).unwrap();
    let mut session = Session::start(&machine.broker, &directory, name);
    session.id();
    session
}

fn send(from: &mut Session, to: &mut Session, number: usize) -> Duration {
    let begun = Instant::now();
    let arguments = json!({"targetPeerId": "api@desktop", "message": format!("message {number}: {}", "x".repeat(200))});
    let id = from.ask("tools/call", json!({"name": "send_message", "arguments": arguments}));
    to.pushed();
    let time = begun.elapsed();
    from.answer(id);
    time
}

fn once(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(50)); // between two looks
    }
}

fn memory(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    format!("{:.1} MiB", line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1_024.0)
}

fn processor_time(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: PathBuf| fs::read_to_string(task.join("schedstat")).ok()?.split_whitespace().next()?.parse::<u64>().ok();
    Duration::from_nanos(tasks.filter_map(|task| of(task.unwrap().path())).sum())
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
