//! The broker on a real session bus: introspection, methods, errors and signals, and buses that are missing, silent, dying or
//! another user's.

use crate::support::{
    Broker, Session,
    bus::{Bus, Client, NAME, PATH, silent},
    events::Peer,
    eventually, folder,
    other::as_another_user,
};
use serde_json::{Value, json};
use std::{collections::HashMap, fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};
use zbus::Variant;

/// A broker on this bus.
fn broker_on(bus: &Bus, more: &[(&str, &str)]) -> Broker {
    Broker::with(&[&[("DBUS_SESSION_BUS_ADDRESS", bus.address())], more].concat())
}

fn send(client: &Client, to: &str, text: &str, options: &[(&str, &str)]) -> Result<Value, (String, String)> {
    let options: HashMap<&str, Variant<'_>> = options.iter().map(|(name, value)| (*name, Variant::from(*value))).collect();
    client.call("Send", &(to, text, options))
}

fn notices(broker: &Broker) -> String {
    broker.http().get("/v1/status").json()["notices"].to_string()
}

// Introspection, methods and signals.

/// Each member with its arguments from introspection, and whether a comment precedes it.
fn members(xml: &str) -> Vec<(String, bool)> {
    let attribute = |line: &str, name: &str| {
        line.split_once(&format!(" {name}=\"")).map_or("", |(_, rest)| rest.split('"').next().unwrap()).to_owned()
    };
    let ours = xml.split_once(&format!("<interface name=\"{NAME}\">")).unwrap().1.split_once("</interface>").unwrap().0;
    let (mut members, mut commented) = (Vec::new(), false);
    for line in ours.lines().map(str::trim) {
        if ["<method", "<signal", "<property"].iter().any(|kind| line.starts_with(kind)) {
            let kind = line.split([' ', '<']).nth(1).unwrap();
            let words = [kind.to_owned(), attribute(line, "name"), attribute(line, "type"), attribute(line, "access")];
            members.push((words.join(" ").trim_end().to_owned(), commented));
        } else if line.starts_with("<arg") {
            let words = [attribute(line, "direction"), attribute(line, "name"), attribute(line, "type")];
            members.last_mut().unwrap().0 += &format!(", {}", words.join(" ").trim());
        }
        commented = line == "-->";
    }
    members
}

#[test]
fn introspection_names_and_explains_every_member() {
    let bus = Bus::start();
    let (client, _broker) = (bus.client(), broker_on(&bus, &[]));
    assert!(client.broker_is_there(), "the name is taken when READY=1 is said");
    let xml = client.call_of(NAME, PATH, "org.freedesktop.DBus.Introspectable", "Introspect", &()).unwrap();
    let members = members(xml[0].as_str().unwrap());
    let expected = [
        "method Status, out status a{sv}",
        "method ListPeers, in scope s, in directory s, out peers aa{sv}",
        "method Send, in recipient s, in text s, in options a{sv}, out message_id s, out receipt a{sv}",
        "method MessageState, in message_id s, out state s, out receipt a{sv}",
        "method Search, in words s, in options a{sv}, out messages aa{sv}",
        "method SetLogLevel, in level s",
        "method Stop",
        "signal PeerJoined, id s, name s, directory s",
        "signal PeerLeft, id s, name s",
        "signal MessageStateChanged, message_id s, sender s, recipient s, state s, route s",
        "property LogLevel s read",
        "property PeerCount u read",
        "property Version s read",
        "property WaitingCount t read",
    ];
    assert_eq!(members.iter().map(|(member, _)| member.as_str()).collect::<Vec<_>>(), expected);
    assert!(members.iter().all(|(_, commented)| *commented), "{members:?}");
}

#[test]
fn bus_and_command_line_agree() {
    let bus = Bus::start();
    let (client, broker) = (bus.client(), broker_on(&bus, &[]));
    let peer = Peer::register(&broker.http(), "one", json!({"tty": "/dev/pts/\u{0}"}));
    peer.over(&broker.http()).post("/v1/set-summary", &json!({"summary": "zero \u{0} byte", "source": "session"})).json();
    send(&client, &peer.id, "hello", &[]).unwrap();

    // The first maintenance may still change the size of the database.
    let shown = eventually("both tell the same", || {
        let told = client.call("Status", &()).unwrap()[0].clone();
        Some(broker.cli_json(&["status"]).1).filter(|shown| shown["broker"] == told)
    });
    assert_eq!((shown["broker"]["peers"].as_u64(), shown["broker"]["database"]["waiting"].as_u64()), (Some(1), Some(1)));
    assert_eq!((client.property("PeerCount"), client.property("WaitingCount")), (json!(1), json!(1)));
    assert_eq!(client.property("Version"), shown["broker"]["version"]);

    // Text on the bus is printable, and unknown values are left out. Everything else is the same.
    let mut listed = shown["peers"].clone();
    listed[0]["summary"] = json!("zero \\u{0} byte");
    listed[0]["tty"] = json!("/dev/pts/\\u{0}");
    listed[0].as_object_mut().unwrap().retain(|_, value| !value.is_null());
    assert_eq!(client.call("ListPeers", &("", "")).unwrap()[0], listed);
    assert_eq!(client.call("ListPeers", &("directory", "/tmp")).unwrap()[0], listed);
    assert_eq!(client.call("ListPeers", &("directory", "/")).unwrap()[0], json!([]));
    let told = format!("{:?}{:?}", client.call("Status", &()), client.call("ListPeers", &("", "")));
    assert!(!told.contains(&peer.secret), "{told}");
}

#[test]
fn every_message_state_is_signalled() {
    let bus = Bus::start();
    let (mut client, broker) = (bus.client(), broker_on(&bus, &[]));
    let place = folder();
    let mut session = Session::start(&broker, place.path(), "one");
    let joined = client.signal("PeerJoined");
    let id = joined[0].as_str().unwrap().to_owned();
    assert_eq!(joined, json!([id, broker.cli_json(&["peers"]).1["peers"][0]["name"], place.path().to_str().unwrap()]));
    client.property_becomes("PeerCount", &json!(1));

    let sent = send(&client, &id, "Is anybody there?", &[("key", "k1")]).unwrap();
    let message = sent[0].as_str().unwrap();
    assert_eq!((&sent[1]["messageId"], &sent[1]["from"], &sent[1]["state"]), (&json!(message), &json!("cli"), &json!("queued")));
    assert_eq!(send(&client, &id, "Is anybody there?", &[("key", "k1")]).unwrap()[0], message, "the same key: the same message");
    assert_eq!(client.signal("MessageStateChanged"), json!([message, "cli", id, "queued", ""]));
    assert_eq!(client.signal("MessageStateChanged"), json!([message, "cli", id, "offered", "channel"]));
    assert_eq!(session.pushed()["content"].as_str().map(|text| text.contains("Is anybody there?")), Some(true));
    client.property_becomes("WaitingCount", &json!(1));

    session.call("check_messages", json!({}));
    assert_eq!(client.signal("MessageStateChanged"), json!([message, "cli", id, "delivered", "check_messages"]));
    client.property_becomes("WaitingCount", &json!(0));
    let known = client.call("MessageState", &(message,)).unwrap();
    assert_eq!((&known[0], &known[1]["route"], &known[1]["text"]), (&json!("delivered"), &json!("check_messages"), &Value::Null));

    session.kill();
    assert_eq!(client.signal("PeerLeft"), json!([id, joined[1]]));
    client.property_becomes("PeerCount", &json!(0));
}

#[test]
fn reply_poll_and_expiry_are_signalled() {
    let bus = Bus::start();
    let (mut client, mut broker) = (bus.client(), broker_on(&bus, &[]));
    let http = broker.http();
    let (ada, bob) = (Peer::register(&http, "a", json!({"channel": true})), Peer::register(&http, "b", json!({})));
    let (mut pushes, _bobs) = (ada.follow(&http), bob.follow(&http));

    let asked = bob.over(&http).post("/v1/send", &json!({"to": ada.id, "text": "Which port?"})).json()["messageId"].clone();
    assert_eq!(pushes.next().unwrap().1["id"], asked);
    let offered = json!({"route": "channel", "messages": [{"id": asked, "outcome": "offered"}]});
    ada.over(&http).post("/v1/acknowledge", &offered).json();
    let reply = json!({"to": bob.id, "text": "7899", "replyTo": asked});
    let reply = ada.over(&http).post("/v1/send", &reply).json()["messageId"].clone();
    let expected = [
        json!([asked, bob.id, ada.id, "queued", ""]),
        json!([asked, bob.id, ada.id, "offered", "channel"]),
        json!([asked, bob.id, ada.id, "delivered", "reply"]),
        json!([reply, ada.id, bob.id, "queued", ""]),
    ];
    for expected in expected {
        assert_eq!(client.signal("MessageStateChanged"), expected);
    }

    let old = broker.tcp().post("/register", &json!({"pid": std::process::id(), "cwd": "/tmp"})).json()["id"].clone();
    let sent = ada.over(&http).post("/v1/send", &json!({"to": old, "text": "hi"})).json()["messageId"].clone();
    for _ in 0..2 {
        broker.tcp().post("/poll-messages", &json!({"id": old})).json();
    }
    for (state, route) in [("queued", ""), ("offered", "poll"), ("delivered", "poll")] {
        assert_eq!(client.signal("MessageStateChanged"), json!([sent, ada.id, old, state, route]));
    }

    // A week later, the message to bob expires, and the broker tells ada.
    broker.restart_later(Duration::from_secs(7 * 86_400 + 60));
    assert_eq!(client.signal("MessageStateChanged"), json!([reply, ada.id, bob.id, "expired", ""]));
    let notice = client.signal("MessageStateChanged");
    assert_eq!((&notice[1], &notice[2], &notice[3]), (&json!("broker"), &json!(ada.id), &json!("queued")));
}

#[test]
fn bus_errors_have_names() {
    let bus = Bus::start();
    let (client, broker) = (bus.client(), broker_on(&bus, &[("CLAUDE_PEERS_TEXT_LIMIT", "100")]));
    let peer = Peer::register(&broker.http(), "one", json!({}));
    send(&client, &peer.id, "hello", &[("key", "k1")]).unwrap();
    let refused = |expected: &str, answer: Result<Value, (String, String)>| {
        let (name, text) = answer.expect_err(expected);
        assert_eq!(name, format!("{NAME}.Error.{expected}"), "{text}");
        assert!(!text.is_empty());
        text
    };
    let text = refused("PeerNotFound", send(&client, "nobody", "hi", &[]));
    assert!(text.contains("Peer nobody not found; list the peers"), "{text}");
    refused("InvalidId", send(&client, "no body", "hi", &[]));
    refused("NoMailbox", send(&client, "cli", "hi", &[]));
    refused("EmptyMessage", send(&client, &peer.id, "", &[]));
    refused("TooLarge", send(&client, &peer.id, &"x".repeat(101), &[]));
    refused("IdempotencyConflict", send(&client, &peer.id, "other", &[("key", "k1")]));
    refused("MessageNotFound", send(&client, &peer.id, "hi", &[("replyTo", "m99-abcdef")]));
    let text = refused("InvalidRequest", send(&client, &peer.id, "hi", &[("reply_to", "m1-abcdef")]));
    assert!(text.contains("\"reply_to\" is unknown; there are replyTo (s) and key (s)"), "{text}");
    let wrong: HashMap<&str, Variant<'_>> = [("key", Variant::from(7_u32))].into();
    refused("InvalidRequest", client.call("Send", &(&peer.id, "hi", wrong)));
    for _ in 0..3 {
        send(&client, &peer.id, "again", &[]).unwrap();
    }
    refused("RepeatLimited", send(&client, &peer.id, "again", &[]));
    refused("MessageNotFound", client.call("MessageState", &("m99-abcdef",)));
    refused("InvalidId", client.call("MessageState", &("99",)));
    refused("UnknownScope", client.call("ListPeers", &("galaxy", "")));
    refused("InvalidPath", client.call("ListPeers", &("repo", "tmp")));
    refused("InvalidRequest", client.call("ListPeers", &("repo", "")));
    let text = refused("InvalidRequest", client.call("SetLogLevel", &("loud",)));
    assert!(text.contains("\"loud\" is no log level; use error, warn, info, debug or trace"), "{text}");
    // Errors for which the bus itself has names.
    let (name, _) = client.call("Send", &("one argument",)).unwrap_err();
    assert_eq!(name, "org.freedesktop.DBus.Error.InvalidArgs");
    let (name, _) = client.call("Fly", &()).unwrap_err();
    assert_eq!(name, "org.freedesktop.DBus.Error.UnknownMethod");
}

#[test]
fn log_level_can_change_at_run_time() {
    let bus = Bus::start();
    let (mut client, broker) = (bus.client(), broker_on(&bus, &[]));
    assert_eq!(client.property("LogLevel"), "info");
    let acknowledge = |name: &str| {
        let peer = Peer::register(&broker.http(), name, json!({}));
        peer.over(&broker.http()).post("/v1/acknowledge", &json!({"route": "hook", "messages": []})).json();
        broker.log().contains("DEBUG acknowledged 0 messages")
    };
    assert!(!acknowledge("one"));
    client.call("SetLogLevel", &("debug",)).unwrap();
    client.property_becomes("LogLevel", &json!("debug"));
    assert_eq!(client.property("LogLevel"), "debug");
    assert!(acknowledge("two"), "{}", broker.log());
    client.call("SetLogLevel", &("error",)).unwrap();
    let before = broker.log().len();
    acknowledge("three");
    assert_eq!(broker.log().len(), before, "{}", broker.log());
}

#[test]
fn stop_call_is_answered_and_name_released() {
    let bus = Bus::start();
    let (client, mut broker) = (bus.client(), broker_on(&bus, &[]));
    assert_eq!(client.call("Stop", &()), Ok(json!([])));
    assert!(broker.wait().success());
    assert!(!client.broker_is_there());
    let log = broker.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR") && log.contains("stopped"), "{log}");
}

/// The bus starts the program itself unless it is told to ask systemd.
#[test]
fn call_to_its_name_starts_the_broker() {
    let (broker, data) = (Broker::prepared(&[]), folder());
    let services = data.path().join("dbus-1/services");
    fs::create_dir_all(&services).unwrap();
    let file = include_str!("../../packaging/dbus/dev.claudepeers.Broker1.service");
    let file = file.replace("/usr/bin/claude-peersd", env!("CARGO_BIN_EXE_claude-peersd"));
    fs::write(services.join(format!("{NAME}.service")), file).unwrap();
    let mut daemon = Command::new("dbus-daemon");
    daemon.arg("--session").env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    daemon.env("HOME", broker.folder()).env("XDG_DATA_HOME", data.path()).envs(broker.env());
    let bus = Bus::run(daemon, folder());
    let client = bus.client();
    assert!(!client.broker_is_there());
    let status = client.call("Status", &()).unwrap();
    assert_eq!(status[0]["listeners"][0]["address"], *broker.socket().to_str().unwrap());
    client.call("Stop", &()).unwrap();
    let process = format!("/proc/{}", status[0]["pid"]);
    eventually("the broker ends", || (!Path::new(&process).exists()).then_some(()));
}

// Broken buses.

/// Asserts that the broker serves, and returns its notices about the bus.
fn serves(broker: &Broker) -> String {
    let peer = Peer::register(&broker.http(), "serves", json!({}));
    assert_eq!(broker.http().post("/v1/send", &json!({"to": peer.id, "text": "hello"})).status, 200);
    notices(broker)
}

#[test]
fn broker_works_without_a_bus() {
    let broker = Broker::start();
    assert_eq!(serves(&broker), "[]");
    assert!(broker.log().contains("INFO there is no session bus"), "{}", broker.log());
}

#[test]
fn bus_in_the_runtime_directory_is_found() {
    let bus = Bus::start();
    let broker = Broker::with(&[("XDG_RUNTIME_DIR", bus.folder().to_str().unwrap())]);
    assert!(bus.client().broker_is_there());
    assert_eq!(serves(&broker), "[]");
}

#[test]
fn silent_or_fake_bus_delays_nothing() {
    let place = folder();
    let (path, _listener) = silent(place.path());
    let cases = [
        (format!("unix:path={}", path.display()), "did not answer within 2 s"),
        (format!("unix:path={}", place.path().join("nothing").display()), "No such file"),
        ("nonsense".to_owned(), "Invalid address"),
    ];
    for (address, words) in cases {
        let start = std::time::Instant::now();
        let mut broker = Broker::with(&[("DBUS_SESSION_BUS_ADDRESS", &address)]);
        assert!(start.elapsed() < Duration::from_secs(20), "{address}: ready after {:?}", start.elapsed());
        let notices = serves(&broker);
        assert!(notices.contains("D-Bus is not served") && notices.contains(words), "{address}: {notices}");
        assert!(broker.terminate().success());
    }
}

const OPEN_TO_ALL: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:tmpdir=/tmp</listen>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_destination="*" eavesdrop="true"/> <allow eavesdrop="true"/>
  </policy>
</busconfig>
"#;

#[test]
fn bus_of_another_user_is_not_used() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can run a bus as another user");
        return;
    }
    let place = folder();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // This bus would accept any user, as every bus accepts root.
    let config = place.path().join("config");
    fs::write(&config, OPEN_TO_ALL).unwrap();
    let mut daemon = as_another_user(Path::new("dbus-daemon"));
    daemon.arg(format!("--config-file={}", config.display()));
    let bus = Bus::run(daemon, place);
    let broker = broker_on(&bus, &[]);
    let notices = serves(&broker);
    assert!(notices.contains("D-Bus is not served") && notices.contains("belongs to user 65534"), "{notices}");
}

#[test]
fn taken_bus_name_is_reported() {
    let bus = Bus::start();
    let holder = bus.client();
    holder.take_name();
    let mut broker = broker_on(&bus, &[]);
    let notices = serves(&broker);
    assert!(notices.contains(NAME) && notices.contains("held by another program"), "{notices}");
    assert!(broker.terminate().success());
}

#[test]
fn broker_survives_the_death_of_its_bus() {
    let bus = Bus::start();
    let mut broker = broker_on(&bus, &[]);
    drop(bus);
    let notices = eventually("the end of the bus is noticed", || Some(notices(&broker)).filter(|notices| notices != "[]"));
    assert!(notices.contains("the session bus is gone"), "{notices}");
    serves(&broker);
    assert!(broker.terminate().success());
}

#[test]
fn hung_bus_delays_neither_messages_nor_shutdown() {
    let bus = Bus::start();
    let mut client = bus.client();
    let mut broker = broker_on(&bus, &[("CLAUDE_PEERS_RATE_LIMIT", "0"), ("CLAUDE_PEERS_WAITING_LIMIT", "10000")]);
    let peer = Peer::register(&broker.http(), "one", json!({}));
    bus.signal("STOP");
    // Far more signals than the bus socket and the backlog can hold.
    let mut wire = broker.http().converse();
    for number in 0..3_000 {
        let body = json!({"to": peer.id, "text": number.to_string()}).to_string();
        assert_eq!(wire.ask("POST", "/v1/send", &body).status, 200);
    }
    bus.signal("CONT");
    client.property_becomes("WaitingCount", &json!(3_000));
    eventually("the log says what was left out", || broker.log().contains("some signals were left out").then_some(()));

    bus.signal("STOP");
    let start = std::time::Instant::now();
    assert!(broker.terminate().success());
    assert!(start.elapsed() < Duration::from_secs(10), "stopped after {:?}", start.elapsed());
    assert!(!broker.log().contains("cut off"), "{}", broker.log());
}
