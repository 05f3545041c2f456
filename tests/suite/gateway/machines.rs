//! What is known of other machines: which of their peers are there, since when one is away, and how much is remembered.

use super::{announce, confirm, forward, from_desktop, gateway, outgoing, send};
use crate::support::{
    Broker, Session,
    events::{Events, Peer},
    eventually, folder,
    terminal::Terminal,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, DirEntry},
    time::Duration,
};

#[test]
fn machine_is_remembered_by_a_limited_number_of_peers() {
    let broker = Broker::start();
    let peers = |round: usize| (0..1_024).map(move |n| json!({"id": format!("p{round}x{n}"), "name": format!("p{round}-{n}")}));
    let announce = |round: usize, most: usize| {
        let peers: Vec<Value> = peers(round).take(most).collect();
        broker.http().post("/v1/gateway/announce", &json!({"machine": "desktop", "peers": peers}))
    };
    announce(0, 3).json();
    let waits = send(&broker, "p0x0_desktop", "It waits here")["messageId"].clone();
    let forwarded = send(&broker, "p0x1_desktop", "It waits on the hub")["messageId"].clone();
    forward(&broker, &[&forwarded]);
    let here = Peer::register(&broker.http(), "here", json!({}));
    let mut question = from_desktop("m42-tdkxkb", &here.id, "Nobody has read this");
    question["message"]["from"]["id"] = json!("asks");
    gateway(&broker, "receive", &question);
    for round in 1..4 {
        announce(round, 1_024).json();
        assert!(broker.count("SELECT count(*) FROM peer WHERE machine = 'desktop'") <= 2_048, "{round}");
    }
    assert_eq!(broker.count("SELECT count(*) FROM peer WHERE machine = 'desktop'"), 2_048);
    let known = |id: &str| broker.http().post("/v1/send", &json!({"to": id, "text": id})).status == 200;
    let kept = ["p0x0_desktop", "p0x1_desktop", "asks_desktop", "p2x1023_desktop", "p3x0_desktop"].map(known);
    assert_eq!(kept, [true; 5], "peers with mail, and the last ones");
    assert_eq!(["p0x2_desktop", "p1x0_desktop"].map(known), [false; 2], "the ones that were gone first");
    assert_eq!(outgoing(&broker)["messages"][0]["message"]["id"], waits);
    assert_eq!(confirm(&broker, &forwarded, "delivered"), json!({"changed": 1}));
}

#[test]
fn machine_whose_gone_peers_all_have_mail_gets_no_more() {
    let broker = Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    for round in 0..2 {
        let peers: Vec<Value> = (0..1_024).map(|n| json!({"id": format!("p{round}x{n}"), "name": "same"})).collect();
        gateway(&broker, "announce", &json!({"machine": "desktop", "peers": peers}));
        let sent = send(&broker, "@everywhere", &format!("For the {round}th round"));
        assert_eq!(sent["receipts"].as_array().unwrap().len(), 1_024);
    }
    let here = Peer::register(&broker.http(), "here", json!({}));
    let refused = broker.http().post("/v1/gateway/receive", &from_desktop("m42-tdkxkb", &here.id, "Which port?"));
    assert_eq!(refused.code(), "mailbox_full");
    assert!(refused.body.contains("2048") && refused.body.contains("desktop"), "{}", refused.body);
    let refused =
        broker.http().post("/v1/gateway/announce", &json!({"machine": "desktop", "peers": [{"id": "new", "name": "new"}]}));
    assert_eq!(refused.code(), "mailbox_full");
}

/// The other machines, and whether a link works.
fn machines(broker: &Broker) -> (Value, Value) {
    let listed = broker.http().get("/v1/peers?scope=everywhere").json();
    (listed["machines"].clone(), listed["linked"].clone())
}

#[test]
fn list_says_which_machines_are_away_since_when() {
    let mut broker = Broker::start();
    assert_eq!(machines(&broker), (Value::Null, Value::Null), "without a link the list is as ever");
    announce(&broker, "desktop");
    gateway(&broker, "announce", &json!({"machine": "attic", "peers": []}));
    outgoing(&broker);
    let here = json!([{"name": "attic"}, {"name": "desktop"}]);
    assert_eq!(machines(&broker), (here, json!(true)), "a machine without sessions is there, too");
    assert_eq!(broker.http().get("/v1/peers?scope=machine").json()["machines"], Value::Null);
    let heard = broker.http().get("/v1/peers?scope=everywhere").json()["peers"][0]["lastSeen"].clone();
    broker.restart();
    let away = json!([{"name": "desktop", "awaySince": heard}]);
    assert_eq!(machines(&broker), (away, json!(false)), "it was killed, and nothing has come through a link since");

    // The tool and the command say the same.
    let place = folder();
    let mut session = Session::pulling(&broker, place.path(), "s-1");
    let listed = session.tool("list_peers", json!({"scope": "everywhere"}));
    assert_eq!(listed["machines"], json!([{"name": "desktop", "awaySince": heard}]));
    let said = session.call("list_peers", json!({"scope": "everywhere"}))["content"][0]["text"].to_string();
    let since = heard.as_str().unwrap();
    assert!(said.contains(&format!("desktop has been away since {since}")) && said.contains("claude-peers-link"), "{said}");
    let (_, listed) = broker.cli_json(&["peers", "--scope", "everywhere"]);
    assert_eq!(listed["machines"][0]["awaySince"], heard);
    if let Some(terminal) = Terminal::run(&broker, "claude-peers peers --scope everywhere", (100, 20), &[]) {
        terminal.shows("desktop has been away since");
        terminal.shows("claude-peers-link does not run here");
    }
    announce(&broker, "desktop");
    outgoing(&broker);
    assert_eq!(machines(&broker), (json!([{"name": "desktop"}]), json!(true)));
}

#[test]
fn mail_to_a_machine_that_is_away_says_so() {
    let mut broker = Broker::start();
    announce(&broker, "desktop");
    let heard = broker.http().get("/v1/peers?scope=everywhere").json()["peers"][0]["lastSeen"].clone();
    broker.restart();
    outgoing(&broker);
    let sent = send(&broker, "shop-api@desktop", "Which port?");
    let id = &sent["messageId"];
    let since = format!("desktop has been away since {}", heard.as_str().unwrap());
    let says = |text: &Value, what: &str| {
        let text = text.as_str().unwrap_or_default();
        assert!(text.contains(&since) && text.contains(what), "{what}: {text}");
    };
    says(&sent["warning"], "the message waits here until");
    says(&broker.message(id)["warning"], "the message waits here until");
    let shown = broker.cli(&["message", id.as_str().unwrap()]).output().unwrap();
    says(&json!(String::from_utf8(shown.stdout).unwrap()), "away since");
    forward(&broker, &[id]);
    says(&broker.message(id)["warning"], "it is stored on its way there until");
    let asked = broker.cli(&["ask", "shop-api@desktop", "And now?"]).output().unwrap();
    says(&json!(String::from_utf8(asked.stderr).unwrap()), "the message waits here until");
    announce(&broker, "desktop");
    assert_eq!(broker.message(id)["warning"], Value::Null);
}

#[test]
fn watchers_are_told_that_a_silent_machine_is_away() {
    let broker = Broker::start();
    let mut events = Events::watch(&broker.http());
    assert_eq!(events.next().unwrap().0, "ready");
    announce(&broker, "desktop");
    assert_eq!(events.next().map(|(name, peer)| (name, peer["id"].clone())), Some(("peer".to_owned(), json!("k7xq2m_desktop"))));
    broker.tells_that("1 peer");
    announce(&broker, "desktop");
    let heard = broker.http().get("/v1/peers?scope=everywhere").json()["peers"][0]["lastSeen"].clone();
    assert_eq!(events.next(), Some(("left".to_owned(), json!("k7xq2m_desktop"))));
    broker.tells_that("0 peers");
    assert_eq!(machines(&broker).0, json!([{"name": "desktop", "awaySince": heard}]));
}

/// A thread that sleeps is never switched to, however slow the machine is.
#[test]
fn broker_sleeps_while_a_machine_is_there() {
    let broker = Broker::start();
    let mut events = Events::watch(&broker.http());
    assert_eq!(events.next().unwrap().0, "ready");
    eventually("it sleeps for longer than a second", || {
        announce(&broker, "desktop");
        std::thread::sleep(Duration::from_millis(200));
        let before = switches(&broker);
        std::thread::sleep(Duration::from_millis(1_500));
        switches(&broker).iter().all(|(thread, count)| before.get(thread) == Some(count)).then_some(())
    });
}

/// How often each thread of the broker has gone to sleep.
fn switches(broker: &Broker) -> HashMap<OsString, u64> {
    let threads = fs::read_dir(format!("/proc/{}/task", broker.pid())).unwrap().map(Result::unwrap);
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    };
    // A thread may end in between.
    let counted = |thread: DirEntry| Some((thread.file_name(), count(fs::read_to_string(thread.path().join("status")).ok()?)));
    threads.filter_map(counted).collect()
}
