//! What the broker logs: who did what to whom, once, at the right level, with fields in the journal, and never a message's text.

use crate::support::{Broker, PATIENCE, events::Peer, folder, mount::with_mounts};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    process::Stdio,
};

const TEXT: &str = "the-text-of-a-message";

/// Two peers, of which one sends the other a message and takes it; the sender also writes to nobody. Returns the message's id.
fn exchange(broker: &Broker) -> (String, Peer, Peer) {
    let http = broker.http();
    let [web, api] = ["web", "api"].map(|name| {
        let git = json!({"commonDir": format!("/{name}/.git"), "head": format!("/{name}/HEAD"), "repo": name, "branch": "main"});
        Peer::register(&http, name, json!({"cwd": format!("/{name}"), "git": git}))
    });
    let (as_web, as_api) = (web.over(&http), api.over(&http));
    let sent = as_web.post("/v1/send", &json!({"to": "api", "text": TEXT})).json();
    assert_eq!(as_web.post("/v1/send", &json!({"to": "nobody", "text": TEXT})).code(), "peer_not_found");
    let lease = json!({"lease": "l", "route": "check_messages"});
    assert_eq!(as_api.post("/v1/take", &lease).json()["messages"][0]["id"], sent["messageId"]);
    let acknowledgement = json!({"id": sent["messageId"], "outcome": "delivered", "lease": "l"});
    as_api.post("/v1/acknowledge", &json!({"route": "check_messages", "messages": [acknowledgement]})).json();
    (sent["messageId"].as_str().unwrap().to_owned(), web, api)
}

#[test]
fn line_says_who_did_what_to_whom() {
    let mut broker = Broker::start();
    exchange(&broker);
    assert!(broker.terminate().success());
    let log = broker.log();
    for said in [
        "INFO web → api m1 queued\n",
        "INFO web → api m1 delivered by check_messages after ",
        "INFO web → nobody refused: peer_not_found\n",
        "INFO stopped\n",
    ] {
        assert_eq!(log.matches(said).count(), 1, "{said}: {log}");
    }
    assert_eq!(log.matches(" → ").count(), 3, "each is said once: {log}");
    assert!(!log.contains(TEXT) && !log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

/// An entry of the journal's native protocol, in which every value has its length before it.
fn entry(mut datagram: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while let Some(end) = datagram.iter().position(|byte| *byte == b'\n') {
        let (name, rest) = (String::from_utf8_lossy(&datagram[..end]).into_owned(), &datagram[end + 1..]);
        if let Some((name, value)) = name.split_once('=') {
            fields.insert(name.to_owned(), value.to_owned());
            datagram = rest;
            continue;
        }
        let size = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
        fields.insert(name, String::from_utf8_lossy(&rest[8..8 + size]).into_owned());
        datagram = &rest[8 + size + 1..];
    }
    fields
}

#[test]
fn journal_has_the_documented_fields() {
    let (mut broker, place) = (Broker::prepared(&[]), folder());
    let journal = UnixDatagram::bind(place.path().join("socket")).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let log = OpenOptions::new().create(true).append(true).open(broker.folder().join("log")).unwrap();
    let meta = log.metadata().unwrap();
    let mut command = broker.command();
    command.env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()));
    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && ln -s \"$0/socket\" /run/systemd/journal/socket";
    let Some(mut command) = with_mounts(&command, script, place.path()) else { return };
    command.stdout(Stdio::null()).stderr(log);
    broker.launch_as(command);
    let (id, web, api) = exchange(&broker);
    let mut buffer = vec![0; 65_536];
    let mut next = || {
        let size = journal.recv(&mut buffer).unwrap();
        assert!(!String::from_utf8_lossy(&buffer[..size]).contains(TEXT));
        entry(&buffer[..size])
    };
    let delivered = std::iter::from_fn(|| Some(next()))
        .find(|entry| entry.get("MESSAGE").is_some_and(|text| text.contains(" delivered ")))
        .unwrap();
    let expected = [
        ("CLAUDE_PEERS_MESSAGE", id.as_str()),
        ("CLAUDE_PEERS_PEER", &api.id),
        ("CLAUDE_PEERS_SENDER", &web.id),
        ("CLAUDE_PEERS_STATE", "delivered"),
        ("CLAUDE_PEERS_ROUTE", "check_messages"),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "claude-peersd"),
    ];
    for (field, value) in expected {
        assert_eq!(delivered.get(field).map(String::as_str), Some(value), "{field}: {delivered:?}");
    }
    assert!(delivered["MESSAGE"].starts_with("web → api m1 delivered by check_messages after "), "{delivered:?}");
    assert!(fs::read_to_string(broker.folder().join("log")).unwrap().is_empty(), "the journal has it all");
}
