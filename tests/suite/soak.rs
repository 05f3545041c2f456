//! A week in an hour: sessions come and go, messages are delivered, held and expire, history is pruned, peers are forgotten. After
//! the first tenth, memory, descriptors, threads and the database of the broker stay flat, and so does a session's server.
//!
//! `CLAUDE_PEERS_TEST_SOAK` sets the length in seconds, `CLAUDE_PEERS_TEST_SEED` the seed. The settings scale the clock: what is
//! kept for days is kept for a fraction of the run. The load is more than that of a week.

use crate::{
    chaos::client::{Client, Route, let_in},
    support::{Broker, Session, folder, random::Random},
};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    fs,
    path::Path,
    sync::{Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

/// How long the run takes by default: an hour.
const LENGTH: u64 = 3_600;
/// Into how many parts the run is cut: the second and the last are compared.
const PARTS: usize = 10;
/// How many samples are taken.
const SAMPLES: u32 = 1_000;
/// The most by which the last part's median may exceed that of the second, in percent.
const GROWTH: u64 = 5;
/// The parts of the run after which undelivered messages expire, and ended ones are forgotten. Both are over within the first
/// tenth.
const EXPIRY: u64 = 60;
const HISTORY: u64 = 30;
/// How many sessions run at once beside the one that stays.
const ROUTES: [Route; 8] =
    [Route::Channel, Route::Channel, Route::Pull, Route::Pull, Route::Pull, Route::Inbox, Route::Inbox, Route::HeldInbox];
/// The mean pause of a session between two calls.
const PACE: Duration = Duration::from_millis(100);
/// How many peers the sessions remember. Most are gone by then, and some forgotten.
const KNOWN: usize = 40;

#[test]
#[ignore = "takes an hour: `just soak`"]
fn a_week_leaves_nothing_behind() {
    let length = std::env::var("CLAUDE_PEERS_TEST_SOAK").map_or(LENGTH, |seconds| seconds.parse().unwrap());
    let mut random = Random::seeded();
    let seed = random.seed();
    let span = |parts: u64| format!("{}s", (length / parts).max(1));
    let settings =
        [("CLAUDE_PEERS_EXPIRY", &*span(EXPIRY)), ("CLAUDE_PEERS_HISTORY", &*span(HISTORY)), ("CLAUDE_PEERS_RATE_LIMIT", "6000")];
    let (broker, place, week) = (Broker::with(&settings), folder(), Week::default());
    let mut stays = Session::pulling(&broker, place.path(), "stays");
    week.meet(stays.id());

    let samples = thread::scope(|scope| {
        for (slot, route) in ROUTES.into_iter().enumerate() {
            let (random, place) = (random.branch(), place.path().join(slot.to_string()));
            fs::create_dir(&place).unwrap();
            let (broker, week) = (&broker, &week);
            scope.spawn(move || come_and_go(slot, route, broker, &place, week, random));
        }
        let over = Over(&week);
        let samples = sample(&broker, &mut stays, &week, Duration::from_secs(length));
        drop(over);
        samples
    });

    let happened = week.happened();
    print_table(&samples, &happened, length, seed);
    assert!(happened.iter().all(|(_, count)| *count > 0), "something never happened: {happened:?}");
    let gone = broker.count("SELECT coalesce(max(seq), 0) - count(*) FROM message");
    assert!(gone > 0, "no history was pruned");
    let peers = broker.count("SELECT count(*) FROM peer");
    assert!(peers < happened[0].1 as i64, "no peer was forgotten");
    let grown: Vec<String> = MEASURES.iter().filter_map(|measure| measure.growth(&samples)).collect();
    assert!(grown.is_empty(), "to repeat: CLAUDE_PEERS_TEST_SEED={seed}; not flat:\n{}", grown.join("\n"));
}

/// What the sessions share.
#[derive(Default)]
struct Week {
    over: Mutex<bool>,
    ended: Condvar,
    known: Mutex<VecDeque<String>>,
    counts: Mutex<[u64; 5]>,
}

/// What is counted.
#[derive(Clone, Copy)]
enum Count {
    Sessions,
    Accepted,
    Refused,
    Shown,
    Expired,
}

impl Week {
    /// Waits for the end, for at most `pause`; whether it has come.
    fn is_over_after(&self, pause: Duration) -> bool {
        let over = self.over.lock().unwrap();
        *self.ended.wait_timeout_while(over, pause, |over| !*over).unwrap().0
    }

    fn meet(&self, id: String) {
        let mut known = self.known.lock().unwrap();
        known.retain(|other| *other != id);
        known.push_back(id);
        if known.len() > KNOWN {
            known.pop_front();
        }
    }

    fn anyone(&self, random: &mut Random) -> String {
        let known = self.known.lock().unwrap();
        known[random.below(known.len() as u64) as usize].clone()
    }

    fn count(&self, what: Count, more: u64) {
        self.counts.lock().unwrap()[what as usize] += more;
    }

    fn happened(&self) -> Vec<(&'static str, u64)> {
        let names = ["sessions started", "messages accepted", "messages refused", "messages shown", "senders told of an expiry"];
        names.into_iter().zip(*self.counts.lock().unwrap()).collect()
    }
}

/// Ends the week, even by a panic.
struct Over<'a>(&'a Week);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        *self.0.over.lock().unwrap() = true;
        self.0.ended.notify_all();
    }
}

/// Runs one session after the other; some are resumed.
fn come_and_go(slot: usize, route: Route, broker: &Broker, place: &Path, week: &Week, mut random: Random) {
    let (over, mut session) = (Over(week), 0);
    while !week.is_over_after(Duration::ZERO) {
        session += random.below(2);
        let name = format!("soak-{slot}-{session}");
        let mut client = Client::launch(route, slot.is_multiple_of(2), broker, place, &name);
        week.count(Count::Sessions, 1);
        week.meet(client.session().id());
        for _ in 0..20 + random.below(100) {
            if week.is_over_after(PACE * random.below(20) as u32 / 10) {
                break;
            }
            act(&mut client, week, &mut random);
            if let Client::Inbox(agent) = &client {
                let mut frames = agent.frames();
                frames.retain(|_| random.below(4) > 0); // the user refuses or misses the others
                frames.iter().for_each(|frame| let_in(agent, route, &name, frame));
                week.count(Count::Shown, frames.len() as u64);
            }
        }
        match (client, random.below(2)) {
            (Client::Plain(session), 0) => drop(session.close()),
            (client, _) => drop(client), // killed
        }
    }
    drop(over);
}

/// Calls one tool. Recipients may be gone or forgotten.
fn act(client: &mut Client, week: &Week, random: &mut Random) {
    let session = client.session();
    let result = match random.below(8) {
        0 => session.call("check_messages", json!({})),
        1 => session.call("set_summary", json!({"summary": format!("at work on {}", random.below(1_000_000))})),
        2 => session.call("list_peers", json!({"scope": "machine"})),
        _ => {
            let text = format!("message {} {}", random.below(u64::MAX), "x".repeat(random.below(2_000) as usize));
            let result = session.call("send_message", json!({"targetPeerId": week.anyone(random), "message": text}));
            let accepted = result["structuredContent"]["success"] == true;
            week.count(if accepted { Count::Accepted } else { Count::Refused }, 1);
            result
        }
    };
    let pushed = session.pushes_before();
    week.count(Count::Shown, pushed.len() as u64);
    let content = &result["structuredContent"];
    for message in [&content["incomingMessages"], &content["messages"]].into_iter().filter_map(Value::as_array).flatten() {
        week.count(if message["from"]["id"] == "broker" { Count::Expired } else { Count::Shown }, 1);
    }
}

/// What is measured at one moment.
type Sample = [u64; MEASURES.len()];

/// A number that must stay flat.
struct Measure {
    name: &'static str,
    /// Growth that is no leak, because the number is small or moves in steps.
    slack: u64,
}

const MEASURES: [Measure; 8] = [
    Measure { name: "broker: resident memory, KiB", slack: 256 },
    Measure { name: "broker: proportional memory, KiB", slack: 256 },
    Measure { name: "broker: descriptors", slack: 2 },
    Measure { name: "broker: threads", slack: 3 },
    Measure { name: "database with its log, KiB", slack: 64 },
    Measure { name: "server: resident memory, KiB", slack: 128 },
    Measure { name: "server: descriptors", slack: 1 },
    Measure { name: "server: threads", slack: 0 },
];

impl Measure {
    fn median(&self, samples: &[Sample], part: usize) -> u64 {
        let (from, to) = (samples.len() * part / PARTS, samples.len() * (part + 1) / PARTS);
        let mut values: Vec<u64> = samples[from..to].iter().map(|sample| sample[self.place()]).collect();
        values.sort_unstable();
        values[values.len() / 2]
    }

    fn place(&self) -> usize {
        MEASURES.iter().position(|measure| measure.name == self.name).unwrap()
    }

    /// Says so if it has grown.
    fn growth(&self, samples: &[Sample]) -> Option<String> {
        let (second, last) = (self.median(samples, 1), self.median(samples, PARTS - 1));
        let most = second + second * GROWTH / 100 + self.slack;
        (last > most).then(|| format!("{}: {second} in the second tenth, {last} in the last; at most {most}", self.name))
    }
}

/// Takes samples until the time is up, while the session that stays sends now and then.
fn sample(broker: &Broker, stays: &mut Session, week: &Week, length: Duration) -> Vec<Sample> {
    let (began, mut samples) = (Instant::now(), Vec::new());
    while began.elapsed() < length && !week.is_over_after(length / SAMPLES) {
        stays.call("check_messages", json!({}));
        let to = week.known.lock().unwrap().back().unwrap().clone();
        stays.call("send_message", json!({"targetPeerId": to, "message": format!("after {:?}", began.elapsed())}));
        stays.pushes_before();
        week.meet(stays.id());
        let (own, server) = (broker.pid(), stays.pid());
        samples.push([
            kib(own, "status", "VmRSS:"),
            kib(own, "smaps_rollup", "Pss:"),
            entries(own, "fd"),
            entries(own, "task"),
            broker.http().get("/v1/status").json()["database"]["bytes"].as_u64().unwrap() / 1024,
            kib(server, "status", "VmRSS:"),
            entries(server, "fd"),
            entries(server, "task"),
        ]);
    }
    samples
}

fn kib(pid: u32, file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    value.split_whitespace().next().unwrap().parse().unwrap()
}

fn entries(pid: u32, folder: &str) -> u64 {
    fs::read_dir(format!("/proc/{pid}/{folder}")).unwrap().count() as u64
}

#[expect(clippy::print_stdout, reason = "`just soak` shows it")]
fn print_table(samples: &[Sample], happened: &[(&str, u64)], length: u64, seed: u64) {
    println!("\n| soak of {length} s, seed {seed} | second tenth | last tenth | most |\n|---|---|---|---|");
    for measure in &MEASURES {
        let most = samples.iter().map(|sample| sample[measure.place()]).max().unwrap_or_default();
        println!("| {} | {} | {} | {most} |", measure.name, measure.median(samples, 1), measure.median(samples, PARTS - 1));
    }
    happened.iter().for_each(|(what, count)| println!("| {what} | | {count} | |"));
}
