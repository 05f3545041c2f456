//! What is not accepted on the way, or on the other machine, is told to the sender.

use crate::{
    admin::Operator,
    hub::Hub,
    support::{events::Peer, eventually, installed},
    world::Machine,
};
use serde_json::json;

/// The text of the notice that the sender gets.
fn notice(machine: &Machine, sender: &Peer) -> String {
    let take = json!({"lease": "l", "route": "check_messages", "waitSeconds": 60});
    let taken = sender.over(&machine.broker.http()).post("/v1/take", &take).json();
    taken["messages"][0]["text"].as_str().unwrap().to_owned()
}

#[test]
fn sender_is_told_that_a_mailbox_is_full() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (laptop, desktop) =
        (Machine::linked("laptop", &hub), Machine::linked_with("desktop", &hub, &[("CLAUDE_PEERS_WAITING_LIMIT", "1")]));
    let _api = Peer::register(&desktop.broker.http(), "one", json!({"cwd": "/src/shop-api"})).follow(&desktop.broker.http());
    let web = Peer::register(&laptop.broker.http(), "one", json!({"cwd": "/src/shop-web"}));
    laptop.sees("shop-api@desktop");
    let send = |text: &str| {
        let message = json!({"to": "shop-api@desktop", "text": text});
        web.over(&laptop.broker.http()).post("/v1/send", &message).json()["messageId"].clone()
    };
    let (first, second) = (send("1"), send("2"));
    laptop.broker.message_once("forwarded", &first);
    laptop.broker.message_once("expired", &second);
    let notice = notice(&laptop, &web);
    assert!(notice.contains(second.as_str().unwrap()) && notice.contains("was not accepted"), "{notice}");
    assert_eq!(laptop.broker.message(&first)["state"], "forwarded");
}

#[test]
fn sender_is_told_that_a_message_is_too_large_for_the_hub() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (laptop, desktop) =
        (Machine::linked_with("laptop", &hub, &[("CLAUDE_PEERS_TEXT_LIMIT", "2000000")]), Machine::linked("desktop", &hub));
    let _api = Peer::register(&desktop.broker.http(), "one", json!({"cwd": "/src/shop-api"})).follow(&desktop.broker.http());
    let web = Peer::register(&laptop.broker.http(), "one", json!({"cwd": "/src/shop-web"}));
    laptop.sees("shop-api@desktop");
    // Six times as long in JSON: more than the hub takes.
    let message = json!({"to": "shop-api@desktop", "text": format!("x{}", "\u{1}".repeat(1_000_000))});
    let sent = web.over(&laptop.broker.http()).post("/v1/send", &message).json();
    laptop.broker.message_once("expired", &sent["messageId"]);
    let notice = notice(&laptop, &web);
    assert!(notice.contains("the hub takes 4193236 at most"), "{notice}");
    let next = laptop.send("shop-api@desktop", "The next goes through.");
    laptop.broker.message_once("forwarded", &next["messageId"]);
}

#[test]
fn sender_is_told_that_the_hub_is_full() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (laptop, mut desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let _api = Peer::register(&desktop.broker.http(), "one", json!({"cwd": "/src/shop-api"})).follow(&desktop.broker.http());
    let web = Peer::register(&laptop.broker.http(), "one", json!({"cwd": "/src/shop-web"}));
    laptop.sees("shop-api@desktop");
    desktop.kill_link();
    // Room for one letter.
    let stream = Operator::of(&hub);
    stream.limit(4_096);
    let send = |text: String| {
        let message = json!({"to": "shop-api@desktop", "text": text});
        web.over(&laptop.broker.http()).post("/v1/send", &message).json()["messageId"].clone()
    };
    let first = send("1".repeat(2_000));
    laptop.broker.message_once("forwarded", &first);
    let second = send("2".repeat(2_000));
    laptop.broker.message_once("expired", &second);
    let notice = notice(&laptop, &web);
    assert!(notice.contains(second.as_str().unwrap()) && notice.contains("the hub has no room for it: "), "{notice}");
    // The other machine fetches the first, and there is room again.
    desktop.link();
    eventually("the first arrives", || (desktop.broker.stored().0 == 1).then_some(()));
    let third = send("3".repeat(2_000));
    laptop.broker.message_once("forwarded", &third);
}
