//! Whoever runs the hub sees everything that passes, and may publish whatever it likes: nothing of it gets in.

use crate::{
    admin::Operator,
    hub::{Hub, on},
    support::{events::Peer, eventually, installed},
    world::Machine,
};
use bytes::Bytes;
use serde_json::{Value, json};

#[test]
fn operator_of_the_hub_reads_nothing_and_gets_nothing_in() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (laptop, mut desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let _api = Peer::register(&desktop.broker.http(), "one", json!({"cwd": "/src/shop-api"})).follow(&desktop.broker.http());
    let _web = Peer::register(&laptop.broker.http(), "one", json!({"cwd": "/src/shop-web"})).follow(&laptop.broker.http());
    laptop.sees("shop-api@desktop");
    desktop.sees("shop-web@laptop");
    desktop.kill_link();
    let sent = laptop.send("shop-api@desktop", "The word is swordfish.");
    laptop.broker.message_once("forwarded", &sent["messageId"]);

    let operator = Operator::of(&hub);
    let letter = operator.stored("claude-peers.laptop.mail.desktop");
    let readable = |word: &str| letter.windows(word.len()).any(|part| part == word.as_bytes());
    assert!(!["swordfish", "shop-api", "messages", "laptop"].into_iter().any(readable));
    let mut altered = letter.to_vec();
    let last = altered.last_mut().unwrap();
    *last ^= 1;
    let open = json!({"from": "laptop", "to": "desktop", "letter": {"messages": [], "receipts": []}});
    operator.store("claude-peers.laptop.mail.desktop", altered.into());
    operator.store("claude-peers.laptop.mail.desktop", open.to_string().into());
    operator.store("claude-peers.laptop.mail.desktop", Bytes::new());
    operator.store("claude-peers.stranger.mail.desktop", letter.clone());
    // The same letter again, and back to its sender as if it were the other's.
    operator.store("claude-peers.laptop.mail.desktop", letter.clone());
    operator.store("claude-peers.desktop.mail.laptop", letter);
    desktop.link();

    desktop.link_says("it is none of your machines");
    laptop.link_says("was sealed by laptop to desktop");
    let next = laptop.send("shop-api@desktop", "The next one.");
    eventually("what is sent later arrives", || (desktop.broker.stored().0 >= 2).then_some(()));
    laptop.broker.message_once("forwarded", &next["messageId"]);
    let dropped = desktop.link_log().matches("is dropped").count();
    assert_eq!((dropped, desktop.broker.stored().0, laptop.broker.stored().0), (4, 2, 2));
}

#[test]
fn old_directory_is_not_taken() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (laptop, _desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    laptop.link_says("directory 3 with 2 machines");
    let operator = Operator::of(&hub);
    let old = operator.runtime.block_on(async {
        let stream = operator.hub.get_stream("claude-peers-directory").await.unwrap();
        stream.get_last_raw_message_by_subject("claude-peers-directory").await.unwrap().payload
    });
    hub.revoke("desktop");
    laptop.link_says("directory 4 with 1 machines");
    operator.store("claude-peers-directory", old);
    laptop.link_says("ignoring directory 3 from the hub: this machine already has 4");
    operator.store("claude-peers-directory", r#"{"text":"{\"serial\":9,\"machines\":[]}","signature":""}"#.into());
    laptop.link_says("is not signed by its owner");
    let list = on(&laptop.broker, &["list", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!((&list[0]["name"], list.as_array().unwrap().len()), (&json!("laptop"), 1), "the machine keeps the newest");
}
