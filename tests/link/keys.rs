//! Who may what on the hub.

use crate::{
    hub::{Hub, link_folder},
    support::{broker::signal, events::Peer, eventually, installed},
    world::Machine,
};
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt, time::Instant};

#[test]
fn key_does_not_speak_for_another_machine() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (laptop, mut thief) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let web = Peer::register(&laptop.broker.http(), "one", json!({"cwd": "/src/shop-web"}));
    // The desktop's key was stolen, and its thief claims to be the laptop.
    thief.kill_link();
    let file = link_folder(thief.broker.folder()).join("link.json");
    let claim = fs::read_to_string(&file).unwrap().replace("\"desktop\"", "\"laptop\"");
    fs::write(&file, claim).unwrap();
    thief.link();
    let announce = json!({"machine": "desktop", "peers": [{"id": web.id, "name": "shop-web"}]});
    thief.broker.http().post("/v1/gateway/announce", &announce).json();
    let sent = thief.send("shop-web@desktop", "I am the laptop.");
    thief.link_says("Permissions Violation for Publish to \"claude-peers.laptop.mail.desktop\"");
    thief.link_says("Permissions Violation for Subscription to \"_INBOX_laptop.");
    assert_eq!(thief.broker.message(&sent["messageId"])["state"], "queued");
}

#[test]
fn revoked_machine_is_out() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (laptop, desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let _api = Peer::register(&desktop.broker.http(), "one", json!({"cwd": "/src/shop-api"})).follow(&desktop.broker.http());
    laptop.sees("shop-api@desktop");
    let start = Instant::now();
    hub.revoke("desktop");
    let took = start.elapsed();
    desktop.link_says("not connected to the hub");
    laptop.sees_no_more("shop-api@desktop");
    eprintln!("`link revoke` took {took:?}; the machine was out everywhere {:?} after its start", start.elapsed());
    let sent = laptop.send("shop-api@desktop", "Are you still there?");
    laptop.broker.message_once("expired", &sent["messageId"]);
    assert_eq!(desktop.broker.stored().0, 0);
    // The same name can be given to another machine.
    let tower = Machine::linked("desktop", &hub);
    let _api = Peer::register(&tower.broker.http(), "one", json!({"cwd": "/src/shop-api"})).follow(&tower.broker.http());
    laptop.sees("shop-api@desktop");
    laptop.send("shop-api@desktop", "And you?");
    eventually("the new machine has it", || (tower.broker.stored().0 == 1).then_some(()));
}

#[test]
fn key_that_others_can_read_is_refused() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let mut laptop = Machine::linked("laptop", &hub);
    laptop.kill_link();
    for name in ["login.key", "seal.key"] {
        let file = link_folder(laptop.broker.folder()).join(name);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        laptop.link();
        laptop.link_says(&format!("others can read the key {0}; `chmod 600 {0}`", file.display()));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn link_stops_when_it_is_told() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let machine = Machine::linked("laptop", &hub);
    machine.link_says("linked as laptop");
    signal(machine.link_pid(), "TERM");
    machine.link_says("stopped");
    eventually("the process is gone", || fs::read(format!("/proc/{}/cmdline", machine.link_pid())).ok().filter(Vec::is_empty));
}
