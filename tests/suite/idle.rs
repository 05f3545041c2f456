//! The broker exits when nobody is connected, and the next connection starts it again.

use crate::support::{
    Broker,
    activation::{activated, bind_unix, said},
    events::Peer,
};
use serde_json::json;
use std::{os::fd::OwnedFd, thread::sleep, time::Duration};

#[test]
fn idle_broker_exits_and_loses_nothing() {
    let mut broker = Broker::prepared(&[("CLAUDE_PEERS_IDLE_EXIT", "1s")]);
    let unix = bind_unix(&broker);
    let launch = |broker: &mut Broker| {
        let command = activated(broker, [("unix", OwnedFd::from(unix.try_clone().unwrap()))]);
        broker.launch_as(command);
    };
    launch(&mut broker);
    let http = broker.http();
    let peer = Peer::register(&http, "idle", json!({"sessionId": "idle"}));
    let mut events = peer.follow(&http);
    let id = http.post("/v1/send", &json!({"to": peer.id, "text": "hello", "key": "k"})).json()["messageId"].clone();
    // Longer than the idle limit: a silent session still counts as connected.
    sleep(Duration::from_millis(1_500));
    assert_eq!(events.next().unwrap().0, "waiting");
    drop(events);
    assert!(broker.wait().success());

    let mut early = said(&http);
    launch(&mut broker);
    assert_eq!(early.answer().unwrap().json()["pid"], broker.pid());
    assert_eq!(broker.message(&id)["state"], "queued");
    drop(early);
    assert!(broker.wait().success());
}

#[test]
fn broker_without_activation_does_not_exit_idle() {
    let broker = Broker::start();
    assert!(broker.log().contains("ready"));
    assert!(!broker.log().contains("stops after"), "{}", broker.log());

    let mut broker = Broker::prepared(&[]);
    let unix = bind_unix(&broker);
    broker.launch_as(activated(&broker, [("unix", OwnedFd::from(unix))]));
    assert!(broker.log().contains("stops after 600 s without a connection"), "{}", broker.log());

    let mut broker = Broker::prepared(&[("CLAUDE_PEERS_IDLE_EXIT", "off")]);
    let unix = bind_unix(&broker);
    broker.launch_as(activated(&broker, [("unix", OwnedFd::from(unix))]));
    assert!(!broker.log().contains("stops after"), "{}", broker.log());
}
