//! Sessions of two machines talk, while everything is up and while parts are away.

use crate::{
    hub::Hub,
    support::{Session, events::Peer, eventually, folder, installed},
    world::Machine,
};
use serde_json::{Value, json};
use std::path::Path;

fn directory(place: &Path, name: &str) -> std::path::PathBuf {
    let directory = place.join(name);
    std::fs::create_dir(&directory).unwrap();
    directory
}

#[test]
fn sessions_of_two_machines_talk() {
    if !installed("nats-server") {
        return;
    }
    let (hub, place) = (Hub::start(), folder());
    let (laptop, desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let mut web = Session::start(&laptop.broker, &directory(place.path(), "shop-web"), "s-1");
    let mut api = Session::start(&desktop.broker, &directory(place.path(), "shop-api"), "s-2");
    laptop.sees("shop-api@desktop");
    desktop.sees("shop-web@laptop");
    let text = web.call("list_peers", json!({"scope": "everywhere"}))["content"].to_string();
    assert!(text.contains("shop-api@desktop") && text.contains(", machine desktop"), "{text}");

    let sent = web.send("shop-api@desktop", "Which port?");
    assert_eq!(sent["state"], "queued", "{sent}");
    let pushed = api.pushed();
    let meta = &pushed["meta"];
    assert_eq!((&pushed["content"], &meta["from_name"]), (&json!("Which port?"), &json!("shop-web@laptop")), "{pushed}");
    let offered = laptop.broker.message_once("offered", &sent["messageId"]);
    assert!(offered["forwardedAt"].is_string() && offered["route"] == "channel", "{offered}");

    api.tool("send_message", json!({"targetPeerId": meta["from_id"], "message": "8080", "replyTo": meta["message_id"]}));
    let answer = web.pushed();
    assert_eq!((&answer["content"], &answer["meta"]["reply_to"]), (&json!("8080"), &sent["messageId"]), "{answer}");
    let delivered = laptop.broker.message_once("delivered", &sent["messageId"]);
    assert_eq!(delivered["route"], "reply", "{delivered}");
}

#[test]
fn user_asks_a_session_of_another_machine() {
    if !installed("nats-server") {
        return;
    }
    let (hub, place) = (Hub::start(), folder());
    let (laptop, desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let mut api = Session::start(&desktop.broker, &directory(place.path(), "shop-api"), "s-1");
    laptop.sees("shop-api@desktop");
    let ask = laptop.broker.cli(&["ask", "shop-api", "Which port?"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let asked = api.pushed()["meta"].clone();
    assert_eq!(asked["from_name"], "cli@laptop");
    api.tool("send_message", json!({"targetPeerId": asked["from_id"], "message": "8080", "replyTo": asked["message_id"]}));
    let answer = ask.wait_with_output().unwrap();
    let text = String::from_utf8(answer.stdout).unwrap();
    assert!(answer.status.success() && text.contains("8080"), "{text}");
}

#[test]
fn mail_waits_on_the_hub_while_the_other_machine_is_off() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (laptop, mut desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let api = Peer::register(&desktop.broker.http(), "one", json!({"cwd": "/src/shop-api"}));
    laptop.sees("shop-api@desktop");
    desktop.kill_link();
    desktop.broker.kill();
    let sent = laptop.send("shop-api@desktop", "Which port?");
    let message = laptop.broker.message_once("forwarded", &sent["messageId"]);
    assert_eq!(message["toName"], "shop-api@desktop");
    desktop.broker.launch();
    desktop.link();
    let api = api.again(&desktop.broker.http());
    let take = json!({"lease": "l", "route": "check_messages", "waitSeconds": 60});
    let taken = api.over(&desktop.broker.http()).post("/v1/take", &take).json();
    assert_eq!(taken["messages"][0]["text"], "Which port?");
    let read = json!({"route": "check_messages", "messages": [{"id": taken["messages"][0]["id"], "outcome": "delivered"}]});
    api.over(&desktop.broker.http()).post("/v1/acknowledge", &read).json();
    let message = laptop.broker.message_once("delivered", &sent["messageId"]);
    assert_eq!(message["route"], "check_messages");
}

#[test]
fn mail_waits_here_while_the_hub_is_away() {
    if !installed("nats-server") {
        return;
    }
    let mut hub = Hub::start();
    let (laptop, desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let _api = Peer::register(&desktop.broker.http(), "one", json!({"cwd": "/src/shop-api"})).follow(&desktop.broker.http());
    laptop.sees("shop-api@desktop");
    hub.kill();
    let sent: Vec<Value> = (0..5).map(|number| laptop.send("shop-api@desktop", &format!("{number}"))).collect();
    laptop.link_says("not connected to the hub");
    assert_eq!(laptop.broker.message(&sent[0]["messageId"])["state"], "queued");
    hub.launch();
    let arrived = eventually("all arrive", || {
        let page = desktop.broker.http().get("/v1/history?after=0").json();
        page["messages"].as_array().filter(|messages| messages.len() == 5).cloned()
    });
    let texts: Vec<&str> = arrived.iter().map(|message| message["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["0", "1", "2", "3", "4"]);
    laptop.broker.message_once("forwarded", &sent[4]["messageId"]);
}

#[test]
fn machine_that_leaves_is_gone() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (laptop, mut desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let _api = Peer::register(&desktop.broker.http(), "one", json!({"cwd": "/src/shop-api"})).follow(&desktop.broker.http());
    laptop.sees("shop-api@desktop");
    crate::support::broker::signal(desktop.link_pid(), "TERM");
    laptop.sees_no_more("shop-api@desktop");
    desktop.link();
    laptop.sees("shop-api@desktop");
    desktop.kill_link();
    laptop.sees_no_more("shop-api@desktop");
}
