//! Who may what on the hub.

use crate::{
    hub::Hub,
    support::{broker::signal, events::Peer, eventually, folder, installed},
    world::{LINK, Machine},
};
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt, process::Command};

#[test]
fn key_does_not_speak_for_another_machine() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let laptop = Machine::linked("laptop", &hub);
    let web = Peer::register(&laptop.broker.http(), "one", json!({"cwd": "/src/shop-web"}));
    // The desktop's key was stolen, and its thief claims to be the laptop.
    let mut thief = Machine::linked("laptop", &hub);
    thief.kill_link();
    thief.link_with(&hub, &hub.key("desktop"));
    let announce = json!({"machine": "laptop-2", "peers": [{"id": web.id, "name": "shop-web"}]});
    thief.broker.http().post("/v1/gateway/announce", &announce).json();
    let sent = thief.send("shop-web@laptop-2", "I am the laptop.");
    thief.link_says("Permissions Violation for Publish to \"claude-peers.laptop.laptop-2.mail\"");
    thief.link_says("Permissions Violation for Publish to \"$JS.API.CONSUMER.CREATE.claude-peers.laptop");
    assert_eq!(thief.broker.message(&sent["messageId"])["state"], "queued");
}

#[test]
fn revoked_key_is_out_at_once() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (laptop, desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let _api = Peer::register(&desktop.broker.http(), "one", json!({"cwd": "/src/shop-api"})).follow(&desktop.broker.http());
    laptop.sees("shop-api@desktop");
    hub.revoke(&hub.key("desktop"));
    desktop.link_says("disconnected");
    laptop.sees_no_more("shop-api@desktop");
    let sent = laptop.send("shop-api@desktop", "Are you still there?");
    laptop.broker.message_once("forwarded", &sent["messageId"]);
    assert_eq!(desktop.broker.stored().0, 0);
}

#[test]
fn key_that_others_can_read_is_refused() {
    let place = folder();
    let file = place.path().join("key");
    let key = || Command::new(LINK).arg("key").arg(&file).output().unwrap();
    let made = key();
    assert!(made.status.success() && made.stdout.starts_with(b"U"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!key().status.success(), "it does not replace a key");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Command::new(LINK).args(["prepare", "--hub", "nats://127.0.0.1:1", "--key"]).arg(&file).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("others can read the key") && said.contains("chmod 600"), "{said}");
}

#[test]
fn link_stops_when_it_is_told() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let machine = Machine::linked("laptop", &hub);
    machine.link_says("connected");
    signal(machine.link_pid(), "TERM");
    machine.link_says("stopped");
    eventually("the process is gone", || fs::read(format!("/proc/{}/cmdline", machine.link_pid())).ok().filter(Vec::is_empty));
}
