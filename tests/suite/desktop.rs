//! Desktop notifications, shown by a program on a real session bus.

use crate::support::{
    Broker,
    bus::{Bus, Desktop},
    dunst::Dunst,
    events::Peer,
    eventually, folder,
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt};
use tempfile::TempDir;

/// A broker on a bus with a desktop that shows notifications.
fn place(settings: &[(&str, &str)]) -> (Bus, Desktop, Broker) {
    let bus = Bus::start();
    let desktop = bus.desktop();
    let broker = Broker::with(&[&[("DBUS_SESSION_BUS_ADDRESS", bus.address())], settings].concat());
    (bus, desktop, broker)
}

/// A question of the person to `shop`, and its answer.
fn answered(broker: &Broker, shop: &Peer, text: &str) -> Value {
    let http = broker.http();
    let question = http.post("/v1/send", &json!({"to": "shop", "text": format!("about {text}?")})).json();
    let answer = json!({"to": "cli", "text": text, "replyTo": question["messageId"]});
    shop.over(&http).post("/v1/send", &answer).json()["messageId"].clone()
}

#[test]
fn waiting_session_is_shown_until_it_goes_on() {
    let (_bus, desktop, broker) = place(&[]);
    let file = broker.folder().join("status.json");
    let says = |status: Value| fs::write(&file, status.to_string()).unwrap();
    says(json!({"status": "idle"}));
    let shop = Peer::register(&broker.http(), "shop", json!({"cwd": "/src/shop", "statusFile": file}));
    let _connected = shop.follow(&broker.http());
    says(json!({"status": "waiting", "waitingFor": "<b>permission</b> & prompt"}));
    let shown = desktop.next();
    assert_eq!(
        (&shown["title"], &shown["text"]),
        (&json!("shop needs you"), &json!("&lt;b&gt;permission&lt;/b&gt; &amp; prompt"))
    );
    says(json!({"status": "busy"}));
    assert_eq!(desktop.next(), json!({"closed": shown["number"]}));
}

#[test]
fn session_that_writes_its_status_late_is_watched() {
    let (_bus, desktop, broker) = place(&[]);
    let file = broker.folder().join("late/status.json");
    let shop = Peer::register(&broker.http(), "shop", json!({"cwd": "/src/shop", "statusFile": file}));
    let _connected = shop.follow(&broker.http());
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, json!({"status": "waiting", "waitingFor": "dialog open"}).to_string()).unwrap();
    assert_eq!(desktop.next()["text"], "dialog open");
}

#[test]
fn unread_answer_is_shown_until_it_is_read() {
    let (_bus, desktop, broker) = place(&[]);
    let shop = Peer::register(&broker.http(), "shop", json!({"cwd": "/src/shop"}));
    let read = answered(&broker, &shop, "read at once");
    broker.http().post(&format!("/v1/messages/{}/read", read.as_str().unwrap()), &json!({})).json();
    answered(&broker, &shop, "Green.\nAll of them.");
    let shown = desktop.next();
    assert_eq!((&shown["title"], &shown["text"]), (&json!("shop has answered"), &json!("Green. All of them.")));
    assert!(broker.cli(&["inbox"]).output().unwrap().status.success());
    assert_eq!(desktop.next(), json!({"closed": shown["number"]}));
}

#[test]
fn expired_message_of_the_person_is_shown() {
    let (_bus, desktop, broker) = place(&[("CLAUDE_PEERS_EXPIRY", "1s")]);
    Peer::register(&broker.http(), "shop", json!({"cwd": "/src/shop"}));
    broker.http().post("/v1/send", &json!({"to": "shop", "text": "Are you there?"})).json();
    let shown = desktop.next();
    assert_eq!((&shown["title"], &shown["text"]), (&json!("No proof that shop saw your message"), &json!("Are you there?")));
}

/// A broker on this bus that can open a terminal, and the folder for the words of the command that would open one.
fn broker_with_a_terminal(bus: &Bus) -> (Broker, TempDir) {
    let folder = folder();
    let runtime = folder.path().join("runtime");
    fs::create_dir_all(runtime.join("systemd")).unwrap();
    fs::write(runtime.join("systemd/private"), "").unwrap();
    let (tools, asked) = (folder.path().join("tools"), folder.path().join("asked"));
    fs::create_dir(&tools).unwrap();
    fs::write(tools.join("systemd-run"), format!("#!/bin/sh\necho \"$@\" >{0}.new; mv {0}.new {0}", asked.display())).unwrap();
    fs::set_permissions(tools.join("systemd-run"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", tools.display());
    let settings = [("DBUS_SESSION_BUS_ADDRESS", bus.address()), ("XDG_RUNTIME_DIR", runtime.to_str().unwrap()), ("PATH", &path)];
    (Broker::with(&settings), folder)
}

fn opens_the_live_view(folder: &TempDir) {
    let words = eventually("a terminal is started", || fs::read_to_string(folder.path().join("asked")).ok());
    assert!(words.starts_with("--user ") && words.trim_end().ends_with("/claude-peers"), "{words}");
}

#[test]
fn click_opens_the_live_view() {
    let bus = Bus::start();
    let desktop = bus.desktop();
    let (broker, folder) = broker_with_a_terminal(&bus);
    let shop = Peer::register(&broker.http(), "shop", json!({"cwd": "/src/shop"}));
    answered(&broker, &shop, "Green.");
    let shown = desktop.next();
    assert_eq!(shown["actions"], json!(["default", "Show"]));
    desktop.click(&shown["number"]);
    opens_the_live_view(&folder);
}

// A real program that shows notifications.

#[test]
fn dunst_shows_text_as_data_until_read() {
    for markup in ["full", "no"] {
        let bus = Bus::start();
        let Some(dunst) = Dunst::start(&bus, markup) else { return };
        let broker = Broker::with(&[("DBUS_SESSION_BUS_ADDRESS", bus.address())]);
        let shop = Peer::register(&broker.http(), "shop", json!({"cwd": "/src/shop"}));
        answered(&broker, &shop, "<b>Green</b> & <img src=\"file:///x\"> &amp; \u{202e}all");
        eventually("the answer is shown", || (dunst.displayed() == 1).then_some(()));
        assert!(broker.cli(&["inbox"]).output().unwrap().status.success());
        eventually("it is withdrawn", || (dunst.displayed() == 0).then_some(()));
        let [shown] = &dunst.history()[..] else { panic!("{:?}", dunst.history()) };
        assert_eq!(shown["summary"], "shop has answered");
        // What it has drawn is markup, whose only tags are those around the summary.
        let drawn = shown["message"].as_str().unwrap().strip_prefix("<b>shop has answered</b>\n").unwrap();
        assert!(!drawn.contains(['<', '>', '\u{202e}']), "{drawn}");
        let read =
            drawn.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&");
        assert!(read.starts_with("<b>Green</b> & <img src=\"file:///x\"> &amp; ") && read.ends_with("all"), "{markup}: {read}");
    }
}

#[test]
fn action_of_dunst_opens_the_live_view() {
    let bus = Bus::start();
    let Some(dunst) = Dunst::start(&bus, "full") else { return };
    let (broker, folder) = broker_with_a_terminal(&bus);
    let shop = Peer::register(&broker.http(), "shop", json!({"cwd": "/src/shop"}));
    answered(&broker, &shop, "Green.");
    eventually("the answer is shown", || (dunst.displayed() == 1).then_some(()));
    dunst.action();
    opens_the_live_view(&folder);
}

#[test]
fn notifications_can_be_turned_off() {
    let (_bus, desktop, broker) = place(&[("CLAUDE_PEERS_NOTIFY", "off"), ("CLAUDE_PEERS_EXPIRY", "1s")]);
    Peer::register(&broker.http(), "shop", json!({"cwd": "/src/shop"}));
    let sent = broker.http().post("/v1/send", &json!({"to": "shop", "text": "x"})).json();
    broker.message_once("expired", &sent["messageId"]);
    assert!(desktop.is_silent());
}

#[test]
fn desktop_is_not_flooded() {
    let (_bus, desktop, broker) = place(&[("CLAUDE_PEERS_EXPIRY", "1s"), ("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    Peer::register(&broker.http(), "shop", json!({"cwd": "/src/shop"}));
    let mut last = Value::Null;
    for number in 0..20 {
        last = broker.http().post("/v1/send", &json!({"to": "shop", "text": format!("{number}")})).json()["messageId"].clone();
    }
    broker.message_once("expired", &last);
    (0..10).for_each(|_| _ = desktop.next());
    assert!(desktop.is_silent());
}

#[test]
fn broker_works_without_a_desktop() {
    let bus = Bus::start();
    let broker = Broker::with(&[("DBUS_SESSION_BUS_ADDRESS", bus.address()), ("CLAUDE_PEERS_EXPIRY", "1s")]);
    Peer::register(&broker.http(), "shop", json!({"cwd": "/src/shop"}));
    let sent = broker.http().post("/v1/send", &json!({"to": "shop", "text": "x"})).json();
    broker.message_once("expired", &sent["messageId"]);
    assert!(bus.client().broker_is_there());
}
