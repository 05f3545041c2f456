//! A machine whose clock is an hour off.
//!
//! Its programs run under `libfaketime` (Debian: `apt install faketime`): a time namespace does not move the time of day.

use crate::{
    admin::Operator,
    hub::Hub,
    support::{events::Peer, eventually, folder, installed},
    traffic::{Traffic, UNLIMITED},
    world::Machine,
};
use serde_json::json;
use std::{fs, path::PathBuf, process::Command};

/// The variables that set the clock of a machine's programs. `None`, with a message, where `faketime` is missing.
fn clock(offset: &'static str) -> Option<[(&'static str, String); 3]> {
    if !installed("nats-server") || !installed("faketime") {
        return None;
    }
    let printed = Command::new("faketime").args(["-f", offset, "printenv", "LD_PRELOAD"]).output().unwrap();
    let library = String::from_utf8(printed.stdout).unwrap().trim().to_owned();
    // Only the time of day is off; nobody can set the other clock.
    Some([("LD_PRELOAD", library), ("FAKETIME", offset.to_owned()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())])
}

/// A clock that somebody sets while the programs run.
struct SetClock {
    place: tempfile::TempDir,
    library: String,
}

impl SetClock {
    /// `None`, with a message, where `faketime` is missing.
    fn at(offset: &str) -> Option<Self> {
        let [(_, library), ..] = clock("+0")?;
        let clock = Self { place: folder(), library };
        clock.set(offset);
        Some(clock)
    }

    fn file(&self) -> PathBuf {
        self.place.path().join("clock")
    }

    fn set(&self, offset: &str) {
        fs::write(self.file(), offset).unwrap();
    }

    /// The variables that make a machine's programs go by it.
    fn settings(&self) -> [(&'static str, String); 4] {
        let file = self.file().to_str().unwrap().to_owned();
        let word = |name, value: &str| (name, value.to_owned());
        [
            word("LD_PRELOAD", &self.library),
            word("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            word("FAKETIME_TIMESTAMP_FILE", &file),
            word("FAKETIME_NO_CACHE", "1"),
        ]
    }
}

/// A laptop with the right time and a desktop with a clock that is off, both with these settings.
fn machines(hub: &Hub, clock: &[(&'static str, String); 3], settings: &[(&str, &str)]) -> [Machine; 2] {
    let clock = clock.iter().map(|(name, value)| (*name, value.as_str()));
    let off: Vec<(&str, &str)> = settings.iter().copied().chain(clock).collect();
    [Machine::linked_with("laptop", hub, settings), Machine::linked_with("desktop", hub, &off)]
}

/// Mail passes both ways between a machine with the right time and one whose clock is off.
fn mail_passes(offset: &'static str, settings: &[(&str, &str)]) {
    let Some(clock) = clock(offset) else { return };
    let hub = Hub::start();
    let [laptop, desktop] = machines(&hub, &clock, &[&UNLIMITED, settings].concat());
    let mut traffic = Traffic::between([&laptop, &desktop]);
    for pid in [desktop.broker.pid(), desktop.link_pid()] {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        assert!(maps.contains("libfaketime"), "the clock of process {pid} is off");
    }
    traffic.send([&laptop, &desktop], 20);
    traffic.arrives([&laptop, &desktop]);
}

#[test]
fn mail_passes_with_a_clock_an_hour_ahead() {
    mail_passes("+1h", &[]);
}

#[test]
fn mail_passes_with_a_clock_an_hour_behind() {
    mail_passes("-1h", &[]);
}

#[test]
fn mail_that_waits_for_half_an_hour_passes_with_a_clock_ahead() {
    mail_passes("+1h", &[("CLAUDE_PEERS_EXPIRY", "30m")]);
}

#[test]
fn mail_that_waits_for_half_an_hour_passes_with_a_clock_behind() {
    mail_passes("-1h", &[("CLAUDE_PEERS_EXPIRY", "30m")]);
}

#[test]
fn mail_arrives_after_the_clock_is_set() {
    let Some(clock) = SetClock::at("-10d") else { return };
    let settings = clock.settings();
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let hub = Hub::start();
    let (laptop, desktop) = (Machine::linked("laptop", &hub), Machine::linked_with("desktop", &hub, &settings));
    let _api = Peer::register(&desktop.broker.http(), "one", json!({"cwd": "/src/shop-api"})).follow(&desktop.broker.http());
    laptop.sees("shop-api@desktop");
    laptop.send("shop-api@desktop", "Before.");
    eventually("the first arrives", || (desktop.broker.stored().0 == 1).then_some(()));
    // The machine has found a server of the time.
    clock.set("+0");
    laptop.send("shop-api@desktop", "After.");
    eventually("the second arrives", || (desktop.broker.stored().0 == 2).then_some(()));
}

#[test]
fn letter_is_not_handed_out_again_after_its_message_is_forgotten() {
    let Some(clock) = SetClock::at("+0") else { return };
    let settings = clock.settings();
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let hub = Hub::start();
    let (laptop, mut desktop) =
        (Machine::linked_with("laptop", &hub, &settings), Machine::linked_with("desktop", &hub, &settings));
    let api = Peer::register(&desktop.broker.http(), "one", json!({"cwd": "/src/shop-api"}));
    laptop.sees("shop-api@desktop");
    desktop.kill_link();
    let sent = laptop.send("shop-api@desktop", "Drop the table.");
    laptop.broker.message_once("forwarded", &sent["messageId"]);
    let operator = Operator::of(&hub);
    let letter = operator.stored("claude-peers.laptop.mail.desktop");
    desktop.link();
    let take = json!({"lease": "l", "route": "check_messages", "waitSeconds": 60});
    let taken = api.over(&desktop.broker.http()).post("/v1/take", &take).json();
    let taken = json!({"route": "check_messages", "messages": [{"id": taken["messages"][0]["id"], "outcome": "delivered"}]});
    assert_eq!(api.over(&desktop.broker.http()).post("/v1/acknowledge", &taken).json()["changed"], 1);
    laptop.broker.message_once("delivered", &sent["messageId"]);
    // A month later the broker has forgotten the message, and the hub hands out the letter as a new one.
    clock.set("+31d");
    desktop.broker.restart();
    eventually("the message is forgotten", || (desktop.broker.stored().0 == 0).then_some(()));
    let _web = Peer::register(&desktop.broker.http(), "two", json!({"cwd": "/src/shop-web"})).follow(&desktop.broker.http());
    laptop.sees("shop-web@desktop");
    operator.store("claude-peers.laptop.mail.desktop", letter);
    laptop.send("shop-web@desktop", "A new one.");
    let text = |text: &str| desktop.broker.count(&format!("SELECT count(*) FROM message WHERE text = '{text}'"));
    eventually("the new one arrives", || (text("A new one.") == 1).then_some(()));
    assert_eq!(text("Drop the table."), 0);
}
