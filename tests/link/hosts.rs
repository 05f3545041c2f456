//! Machines on hosts of their own, in every state of the network between them.

use crate::{
    hub::Hub,
    net::{DELAY, Net},
    support::{Session, folder, installed},
    traffic::{Traffic, UNLIMITED},
    world::Machine,
};
use serde_json::json;
use std::{fs, path::Path, time::Instant};

const HUB: [&str; 1] = ["hub"];
const MACHINES: [&str; 2] = ["laptop", "desktop"];

/// The hub and two machines, each on a host of its own.
struct Lan {
    hub: Hub,
    laptop: Machine,
    desktop: Machine,
    net: Net,
}

impl Lan {
    fn start() -> Option<Self> {
        Self::on(Net::of(&HUB, &MACHINES))
    }

    fn on(net: Option<Net>) -> Option<Self> {
        if !installed("nats-server") {
            return None;
        }
        let net = net?;
        let hub = net.on("hub", Hub::start);
        let machine = |name: &'static str| net.on(name, || Machine::linked_with(name, &hub, &UNLIMITED));
        let (laptop, desktop) = (machine("laptop"), machine("desktop"));
        Some(Self { hub, laptop, desktop, net })
    }

    fn machines(&self) -> [&Machine; 2] {
        [&self.laptop, &self.desktop]
    }

    /// A session on a machine, in a folder with this name.
    fn session(&self, machine: &Machine, place: &Path, name: &str) -> Session {
        let directory = place.join(name);
        fs::create_dir(&directory).unwrap();
        self.net.on(machine.name, || Session::start(&machine.broker, &directory, name))
    }
}

#[test]
fn sessions_on_two_hosts_talk_ask_and_broadcast() {
    let Some(lan) = Lan::start() else { return };
    let place = folder();
    let mut web = lan.session(&lan.laptop, place.path(), "shop-web");
    let mut api = lan.session(&lan.desktop, place.path(), "shop-api");
    lan.laptop.sees("shop-api@desktop");
    lan.desktop.sees("shop-web@laptop");

    // One asks and waits for the answer.
    let question = json!({"targetPeerId": "shop-api@desktop", "message": "Which port?", "waitForReplySeconds": 60});
    let call = web.ask("tools/call", json!({"name": "send_message", "arguments": question}));
    let asked = api.pushed();
    assert_eq!((&asked["content"], &asked["meta"]["from_name"]), (&json!("Which port?"), &json!("shop-web@laptop")));
    let (to, about) = (&asked["meta"]["from_id"], &asked["meta"]["message_id"]);
    api.tool("send_message", json!({"targetPeerId": to, "message": "8080", "replyTo": about}));
    let answer = web.answer(call)["result"]["structuredContent"].clone();
    assert_eq!((&answer["answered"], &answer["state"]), (&json!(true), &json!("delivered")), "{answer}");

    // One talks to the other.
    let sent = api.send("shop-web@laptop", "I am ready.");
    assert_eq!(web.pushed()["content"], "I am ready.");
    lan.desktop.broker.message_once("offered", &sent["messageId"]);

    // One tells everybody.
    web.send("@everywhere", "I deploy.");
    assert_eq!(api.pushed()["content"], "I deploy.");
}

#[test]
fn mail_survives_a_partition() {
    let Some(lan) = Lan::start() else { return };
    let mut traffic = Traffic::between(lan.machines());
    traffic.send(lan.machines(), 20);
    lan.net.part(&["laptop"]);
    traffic.send(lan.machines(), 20);
    // It lasts until each machine has given the other up.
    lan.laptop.sees_no_more("of-desktop@desktop");
    lan.desktop.sees_no_more("of-laptop@laptop");
    lan.net.heal();
    traffic.send(lan.machines(), 20);
    traffic.arrives(lan.machines());
}

#[test]
fn mail_survives_a_hub_that_is_away() {
    let Some(mut lan) = Lan::start() else { return };
    let mut traffic = Traffic::between(lan.machines());
    traffic.send(lan.machines(), 20);
    lan.hub.kill();
    traffic.send(lan.machines(), 20);
    lan.machines().iter().for_each(|machine| machine.link_says("not connected to the hub"));
    lan.net.on("hub", || lan.hub.launch());
    traffic.send(lan.machines(), 20);
    traffic.arrives(lan.machines());
}

#[test]
fn mail_passes_a_slow_cable_that_loses_frames() {
    let Some(lan) = Lan::on(Net::with_slow(&HUB, &MACHINES, &["laptop"])) else { return };
    let mut traffic = Traffic::between(lan.machines());
    traffic.send(lan.machines(), 20);
    traffic.arrives(lan.machines());
    // It is slow indeed: what the hub acknowledges has gone there and back.
    let begun = Instant::now();
    let sent = lan.laptop.send("of-desktop@desktop", "How long?");
    lan.laptop.broker.message_once("forwarded", &sent["messageId"]);
    assert!(begun.elapsed() >= 2 * DELAY, "{:?}", begun.elapsed());
}
