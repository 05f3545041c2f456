//! Machines join and leave.

use crate::{
    hub::{Hub, Invitation, join, link_folder, on, said},
    support::{Broker, broker::signal, events::Peer, installed},
    world::Machine,
};
use serde_json::{Value, json};
use std::{fs, net::TcpListener, process::Output};

/// Asserts that it failed, with these words and without another.
fn refused(output: &Output, words: &[&str]) {
    let said = said(output);
    assert!(!output.status.success() && words.iter().all(|word| said.contains(word)), "{said}");
    assert_eq!(said.lines().count(), 1, "one line: {said}");
}

#[test]
fn invitation_works_once() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (first, second) = (Broker::start(), Broker::start());
    let mut invitation = hub.invite("laptop");
    let joined = join(&first, &[&invitation.line]);
    assert!(joined.status.success() && said(&joined).contains("has joined as laptop"), "{}", said(&joined));
    assert!(invitation.end().contains("laptop has joined"));
    refused(&join(&second, &[&invitation.line]), &["used up, withdrawn or too old", "link invite laptop"]);
    assert!(!link_folder(second.folder()).join("link.json").exists());
    refused(&join(&first, &[&invitation.line]), &["has joined already, as laptop", "link leave"]);
    refused(&hub.owner(&["invite", "laptop"]), &["laptop has joined already", "link revoke laptop"]);
}

#[test]
fn interrupted_invitation_is_withdrawn() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let laptop = Broker::start();
    let mut invitation = hub.invite("laptop");
    refused(&hub.owner(&["invite", "laptop"]), &["laptop is invited already"]);
    signal(invitation.child.id(), "INT");
    let said = invitation.end();
    assert!(said.contains("the invitation is withdrawn"), "{said}");
    refused(&join(&laptop, &[&invitation.line]), &["used up, withdrawn or too old"]);
    hub.join("laptop", &laptop);
}

#[test]
fn unusable_invitation_is_refused_in_a_sentence() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let laptop = Broker::start();
    let Invitation { line, .. } = &hub.invite("laptop");
    refused(&join(&laptop, &[&line[..line.len() - 9]]), &["a part of it is missing or changed", "copy the whole line"]);
    refused(&join(&laptop, &["hello"]), &["does not begin with claude-peers-invitation"]);
    refused(&join(&laptop, &[&line.replacen("/1/", "/2/", 1)]), &["it is of another version"]);
}

#[test]
fn invitation_for_another_hub_is_refused() {
    if !installed("nats-server") {
        return;
    }
    let (mut hub, other) = (Hub::start(), Hub::set_up());
    let laptop = Broker::start();
    let Invitation { line, .. } = &hub.invite("laptop");
    // Another hub answers at its address, with a certificate of its own.
    hub.kill();
    for file in ["hub.pem", "hub.key"] {
        fs::copy(other.folder().join("hub").join(file), hub.folder().join("hub").join(file)).unwrap();
    }
    hub.launch();
    refused(&join(&laptop, &[line]), &[&format!("{} is not the hub that it should be", hub.address())]);
    hub.kill();
    refused(&join(&laptop, &[line]), &["cannot be reached", "Connection refused"]);
}

#[test]
fn server_that_is_no_hub_is_named() {
    if !installed("nats-server") {
        return;
    }
    // First one without TLS, then one without JetStream.
    let mut hub = Hub::set_up();
    let config = hub.folder().join("hub/nats-server.conf");
    let written = fs::read_to_string(&config).unwrap();
    let without: Vec<&str> = written.lines().filter(|line| !line.starts_with("tls ")).collect();
    fs::write(&config, without.join("\n")).unwrap();
    hub.launch();
    refused(&hub.owner(&["invite", "laptop"]), &["is not the hub that it should be"]);
    hub.kill();
    let without = written.replace("jetstream: enabled", "jetstream: disabled");
    fs::write(&config, without).unwrap();
    hub.launch();
    refused(&hub.owner(&["invite", "laptop"]), &["JetStream", "2.9.10 or later"]);
}

#[test]
fn hub_that_does_not_run_is_named() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::set_up();
    refused(&hub.owner(&["invite", "laptop"]), &["the hub does not run on this machine", "claude-peers-hub.service"]);
    refused(&hub.owner(&["init", "hub.example"]), &["has a hub already", "--folder"]);
    refused(&hub.owner(&["init", "no host", "--folder", "/tmp/x"]), &["\"no host\" is no address of a hub"]);
    // Something else has its port.
    let _other = TcpListener::bind(hub.address()).unwrap();
    fs::write(hub.folder().join("hub/nats-server.pid"), "1").unwrap();
    let broker = Broker::start();
    refused(&on(&broker, &["status"]), &["has not joined", "link invite"]);
}

#[test]
fn list_and_status_say_how_it_is() {
    if !installed("nats-server") {
        return;
    }
    let mut hub = Hub::start();
    let (laptop, desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let _api = Peer::register(&desktop.broker.http(), "one", json!({"cwd": "/src/shop-api"})).follow(&desktop.broker.http());
    laptop.sees("shop-api@desktop");
    let list = on(&laptop.broker, &["list", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let expected =
        json!([{"name": "laptop", "isThis": true, "sessions": 0}, {"name": "desktop", "isThis": false, "sessions": 1}]);
    assert_eq!(list, expected);
    let owner = hub.owner(&["list"]);
    let text = String::from_utf8(owner.stdout).unwrap();
    assert!(text.lines().count() == 2 && text.contains("desktop") && text.contains("joined"), "{text}");

    let status = on(&laptop.broker, &["status"]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert!(status.status.success() && text.contains("ok      machine: laptop, one of 2"), "{text}");
    assert!(text.contains("letters wait there for this machine") && text.contains("ok      broker: answers"), "{text}");
    hub.kill();
    let status = on(&laptop.broker, &["status"]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert!(!status.status.success() && text.contains("problem hub: the hub at"), "{text}");
}

#[test]
fn machine_leaves() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let mut laptop = Machine::linked("laptop", &hub);
    laptop.kill_link();
    let left = on(&laptop.broker, &["leave"]);
    assert!(left.status.success() && said(&left).contains("link revoke laptop"), "{}", said(&left));
    assert_eq!(fs::read_dir(link_folder(laptop.broker.folder())).unwrap().count(), 0, "no key stays");
    laptop.link();
    laptop.link_says("this machine has not joined any others");
}
