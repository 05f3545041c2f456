//! The gateway: a program of the user's speaks for the peers of other machines. Here the test is that program.

mod machines;
mod remotes;

use crate::support::{Broker, Session, container::open, events::Peer, folder, http::Http};
use serde_json::{Value, json};

/// A request to the gateway that must succeed.
fn gateway(broker: &Broker, verb: &str, body: &Value) -> Value {
    broker.http().post(&format!("/v1/gateway/{verb}"), body).json()
}

/// Announces one peer of this machine.
fn announce(broker: &Broker, machine: &str) {
    let peer = json!({"id": "k7xq2m", "name": "shop-api", "cwd": "/src/shop-api", "gitRepo": "shop-api", "summary": "Orders"});
    gateway(broker, "announce", &json!({"machine": machine, "peers": [peer]}));
}

/// What waits to go to other machines.
fn outgoing(broker: &Broker) -> Value {
    gateway(broker, "take", &json!({}))
}

/// Records that these messages are stored for the other machine.
fn forward(broker: &Broker, ids: &[&Value]) -> Value {
    gateway(broker, "acknowledge", &json!({"messages": ids}))
}

/// The desktop reports a state of a message.
fn confirm(broker: &Broker, id: &Value, state: &str) -> Value {
    gateway(broker, "confirm", &json!({"machine": "desktop", "receipts": [{"id": id, "state": state, "route": "inbox"}]}))
}

/// A message from the desktop's peer to `to`.
fn from_desktop(id: &str, to: &str, text: &str) -> Value {
    let from = json!({"id": "k7xq2m", "name": "shop-api", "cwd": "/src/shop-api"});
    let times = ("2026-05-16T12:36:00.000Z", "2126-05-16T12:36:00.000Z");
    json!({"machine": "desktop", "message": {"id": id, "from": from, "to": to, "text": text, "sentAt": times.0, "expiresAt": times.1}})
}

/// Sends as the user; returns the receipt.
fn send(broker: &Broker, to: &str, text: &str) -> Value {
    broker.http().post("/v1/send", &json!({"to": to, "text": text})).json()
}

#[test]
fn message_to_another_machine_goes_through_all_states() {
    let broker = Broker::start();
    announce(&broker, "desktop");
    let sent = send(&broker, "shop-api@desktop", "Which port?");
    assert_eq!(
        (&sent["state"], &sent["to"], &sent["toName"]),
        (&json!("queued"), &json!("k7xq2m_desktop"), &json!("shop-api@desktop"))
    );
    let (id, taken) = (&sent["messageId"], outgoing(&broker));
    let message = &taken["messages"][0];
    assert_eq!(message["machine"], "desktop");
    let message = &message["message"];
    let facts = (&message["id"], &message["to"], &message["text"], &message["from"]["id"]);
    assert_eq!(facts, (id, &json!("k7xq2m"), &json!("Which port?"), &json!("cli")));
    assert_eq!(outgoing(&broker), taken, "it stays until it is acknowledged");

    assert_eq!(forward(&broker, &[id]), json!({"changed": 1}));
    assert_eq!(forward(&broker, &[id]), json!({"changed": 0}));
    let message = broker.message(id);
    assert_eq!(message["state"], "forwarded", "{message}");
    assert!(message["forwardedAt"].is_string() && message["warning"].is_null(), "{message}");
    assert_eq!(outgoing(&broker), json!({"messages": [], "receipts": []}));
    for state in ["offered", "delivered"] {
        assert_eq!(confirm(&broker, id, state), json!({"changed": 1}), "{state}");
        assert_eq!(confirm(&broker, id, state), json!({"changed": 0}), "{state}");
        let message = broker.message(id);
        assert_eq!((&message["state"], &message["route"]), (&json!(state), &json!("inbox")));
    }
    assert_eq!(confirm(&broker, id, "offered"), json!({"changed": 0}), "a late receipt changes nothing");
}

#[test]
fn receipt_may_come_before_the_acknowledgement() {
    let broker = Broker::start();
    announce(&broker, "desktop");
    let id = send(&broker, "shop-api@desktop", "Which port?")["messageId"].clone();
    confirm(&broker, &id, "offered");
    assert_eq!(outgoing(&broker)["messages"], json!([]), "it has arrived, so it need not be forwarded");
    assert_eq!(forward(&broker, &[&id]), json!({"changed": 0}));
    assert_eq!(broker.message(&id)["state"], "offered");
}

#[test]
fn machine_reports_only_messages_to_its_own_peers() {
    let broker = Broker::start();
    announce(&broker, "desktop");
    announce(&broker, "laptop");
    let here = Peer::register(&broker.http(), "here", json!({}));
    for to in ["shop-api@laptop", &here.name] {
        let id = send(&broker, to, "Which port?")["messageId"].clone();
        assert_eq!(confirm(&broker, &id, "delivered"), json!({"changed": 0}), "{to}");
        assert_eq!(broker.message(&id)["state"], "queued");
    }
}

#[test]
fn message_from_another_machine_is_taken_once() {
    let (broker, place) = (Broker::start(), folder());
    let mut session = Session::start(&broker, place.path(), "s-1");
    let id = session.id();
    let message = from_desktop("m42-tdkxkb", &id, "Which port?");
    let received = gateway(&broker, "receive", &message);
    assert_eq!(gateway(&broker, "receive", &message), received, "the second time it is the same message");
    let pushed = session.pushed();
    assert_eq!((&pushed["meta"]["from_id"], &pushed["content"]), (&json!("k7xq2m_desktop"), &json!("Which port?")), "{pushed}");
    assert_eq!(broker.stored().0, 1);

    // Its machine is told each state, until it is acknowledged.
    broker.message_once("offered", &received["id"]);
    let receipts = outgoing(&broker)["receipts"].clone();
    let receipt = json!({"id": "m42-tdkxkb", "state": "offered", "route": "channel"});
    assert_eq!(receipts, json!([{"machine": "desktop", "id": received["id"], "receipt": receipt}]));
    let told = json!({"receipts": [{"id": received["id"], "state": "offered"}]});
    assert_eq!(gateway(&broker, "acknowledge", &told), json!({"changed": 1}));
    assert_eq!(outgoing(&broker)["receipts"], json!([]));

    // The answer names the question by the id that it has there, and proves that it was read.
    session.tool("send_message", json!({"targetPeerId": "k7xq2m_desktop", "message": "8080", "replyTo": received["id"]}));
    let taken = outgoing(&broker);
    let answer = &taken["messages"][0]["message"];
    assert_eq!((&answer["to"], &answer["replyTo"]), (&json!("k7xq2m"), &json!("m42-tdkxkb")), "{answer}");
    assert_eq!(taken["receipts"][0]["receipt"], json!({"id": "m42-tdkxkb", "state": "delivered", "route": "reply"}));
}

#[test]
fn answer_from_another_machine_reaches_the_one_who_asked() {
    let broker = Broker::start();
    announce(&broker, "desktop");
    let question = send(&broker, "shop-api", "Which port?")["messageId"].clone();
    forward(&broker, &[&question]);
    let mut answer = from_desktop("m7-abcdef", "cli", "8080");
    assert_eq!(
        broker.http().post("/v1/gateway/receive", &answer).code(),
        "peer_not_found",
        "only answers reach the command line"
    );
    answer["message"]["replyTo"] = question.clone();
    gateway(&broker, "receive", &answer);
    assert_eq!(broker.message(&question)["state"], "delivered", "the answer proves it");
    let asked = broker.http().get(&format!("/v1/messages/{}/reply", question.as_str().unwrap())).json();
    assert_eq!((&asked["answer"]["text"], &asked["answer"]["fromName"]), (&json!("8080"), &json!("shop-api@desktop")), "{asked}");
}

#[test]
fn message_may_name_an_earlier_one_of_its_sender() {
    let broker = Broker::start();
    for machine in ["desktop", "laptop"] {
        announce(&broker, machine);
    }
    let here = Peer::register(&broker.http(), "here", json!({}));
    let send = |to: &str, text: &str, names: &Value| {
        let message = json!({"to": to, "text": text, "replyTo": names});
        here.over(&broker.http()).post("/v1/send", &message).json()["messageId"].clone()
    };
    let first = send("shop-api@desktop", "Which port?", &Value::Null);
    send("shop-api@desktop", "And which host?", &first);
    send("shop-api@laptop", "Ask the desktop for its port", &first);
    let taken = outgoing(&broker);
    let named = |index: usize| [&taken["messages"][index]["message"]["replyTo"], &taken["messages"][index]["message"]["follows"]];
    assert_eq!([named(0), named(1), named(2)], [[&Value::Null; 2], [&Value::Null, &first], [&Value::Null; 2]]);

    let mut message = from_desktop("m42-tdkxkb", &here.id, "Which port?");
    let first = gateway(&broker, "receive", &message)["id"].clone();
    message["message"]["follows"] = json!("m42-tdkxkb");
    for (id, follows, names) in [
        ("m43-abcdef", "m42-tdkxkb", &first),
        ("m44-abcdef", "m9-abcdef", &Value::Null),
        ("m45-abcdef", "m45-abcdef", &Value::Null),
    ] {
        (message["message"]["id"], message["message"]["follows"]) = (json!(id), json!(follows));
        let received = gateway(&broker, "receive", &message)["id"].clone();
        assert_eq!(&broker.message(&received)["replyTo"], names, "{id}");
    }
}

#[test]
fn refusal_of_another_machine_is_told_to_the_sender() {
    let broker = Broker::start();
    announce(&broker, "desktop");
    let here = Peer::register(&broker.http(), "here", json!({}));
    let sent = here.over(&broker.http()).post("/v1/send", &json!({"to": "shop-api@desktop", "text": "Which port?"})).json();
    forward(&broker, &[&sent["messageId"]]);
    let receipt = json!({"id": sent["messageId"], "state": "expired", "refusal": "its mailbox is full"});
    gateway(&broker, "confirm", &json!({"machine": "desktop", "receipts": [receipt]}));
    assert_eq!(broker.message(&sent["messageId"])["state"], "expired");
    let taken = here.over(&broker.http()).post("/v1/take", &json!({"lease": "l", "route": "check_messages"})).json();
    let text = taken["messages"][0]["text"].as_str().unwrap();
    assert!(text.contains("shop-api@desktop") && text.contains("its mailbox is full"), "{text}");
}

#[test]
fn message_that_is_too_late_is_not_accepted() {
    let broker = Broker::start();
    let here = Peer::register(&broker.http(), "here", json!({}));
    let mut message = from_desktop("m42-tdkxkb", &here.id, "Which port?");
    message["message"]["expiresAt"] = json!("2026-05-16T12:36:01.000Z");
    assert_eq!(gateway(&broker, "receive", &message), json!({}));
    assert_eq!(broker.stored().0, 0);
}

#[test]
fn peers_of_other_machines_are_listed_everywhere_only() {
    let broker = Broker::start();
    announce(&broker, "desktop");
    let listed = |scope: &str| broker.http().get(&format!("/v1/peers?scope={scope}&cwd=/src/shop-api")).json()["peers"].clone();
    for scope in ["machine", "directory", "repo"] {
        assert_eq!(listed(scope), json!([]), "{scope}");
    }
    let peer = &listed("everywhere")[0];
    let facts = (&peer["id"], &peer["name"], &peer["machine"], &peer["status"], &peer["delivery"]);
    assert_eq!(
        facts,
        (&json!("k7xq2m_desktop"), &json!("shop-api@desktop"), &json!("desktop"), &json!("connected"), &json!("link"))
    );
    gateway(&broker, "announce", &json!({"machine": "desktop", "peers": []}));
    assert_eq!(listed("everywhere"), json!([]), "it is not announced any more");
}

#[test]
fn bare_name_means_a_peer_here_first() {
    let (broker, place) = (Broker::start(), folder());
    announce(&broker, "desktop");
    assert_eq!(send(&broker, "shop-api", "1")["to"], "k7xq2m_desktop");
    announce(&broker, "laptop");
    let refused = broker.http().post("/v1/send", &json!({"to": "shop-api", "text": "2"}));
    assert_eq!(refused.code(), "ambiguous_peer");
    assert!(refused.body.contains("k7xq2m_desktop") && refused.body.contains("k7xq2m_laptop"), "{}", refused.body);
    let directory = place.path().join("shop-api");
    std::fs::create_dir(&directory).unwrap();
    let here = Peer::register(&broker.http(), "here", json!({"cwd": directory}));
    assert_eq!(send(&broker, "shop-api", "3")["to"], here.id.as_str());
}

#[test]
fn mail_for_other_machines_survives_a_restart() {
    let mut broker = Broker::start();
    announce(&broker, "desktop");
    let sent = send(&broker, "shop-api@desktop", "Which port?");
    broker.restart();
    assert_eq!(outgoing(&broker)["messages"][0]["message"]["id"], sent["messageId"]);
    let peer = broker.http().get("/v1/peers?scope=everywhere").json();
    assert_eq!(peer["peers"], json!([]), "nothing was heard of it since");
    assert_eq!(send(&broker, "shop-api@desktop", "And now?")["to"], "k7xq2m_desktop", "mail waits for it all the same");
}

#[test]
fn permission_modes_are_matched_on_the_machine_of_the_recipient() {
    let broker = Broker::start();
    announce(&broker, "desktop");
    let bypassing = Peer::register(&broker.http(), "bypassing", json!({"bypasses": true}));
    let http = bypassing.over(&broker.http());
    let sent = http.post("/v1/send", &json!({"to": "shop-api@desktop", "text": "Which port?"})).json();
    assert_eq!(sent["state"], "queued", "it is not held here");
    assert_eq!(outgoing(&broker)["messages"][0]["message"]["bypasses"], true);
    // In a container it counts as one that asks, on other machines, too.
    let one = Http::unix(&open(&broker, "one").join("broker.sock"));
    let inside = Peer::register(&one, "inside", json!({"bypasses": true}));
    inside.over(&one).post("/v1/send", &json!({"to": "shop-api@desktop", "text": "Which port?"}));
    assert_eq!(outgoing(&broker)["messages"][1]["message"]["bypasses"], false);
    let received = gateway(&broker, "receive", &from_desktop("m42-tdkxkb", &bypassing.id, "8080"));
    assert_eq!(broker.message(&received["id"])["state"], "held", "a session that asks writes to one that bypasses");
}

#[test]
fn nothing_passes_through_to_a_third_machine() {
    let broker = Broker::start();
    announce(&broker, "laptop");
    let refused = broker.http().post("/v1/gateway/receive", &from_desktop("m42-tdkxkb", "k7xq2m_laptop", "Which port?"));
    assert_eq!(refused.code(), "peer_not_found");
}

#[test]
fn gateway_is_for_the_user_alone() {
    let broker = Broker::start();
    let peer = Peer::register(&broker.http(), "here", json!({}));
    for verb in ["announce", "take", "acknowledge", "receive", "confirm"] {
        let body = match verb {
            "announce" => json!({"machine": "desktop", "peers": []}),
            "receive" => from_desktop("m42-tdkxkb", &peer.id, "Which port?"),
            "confirm" => json!({"machine": "desktop", "receipts": []}),
            _ => json!({}),
        };
        let refused = peer.over(&broker.http()).post(&format!("/v1/gateway/{verb}"), &body);
        assert_eq!(refused.code(), "forbidden", "{verb}");
    }
    assert_eq!(peer.over(&broker.http()).get("/v1/gateway/peers").code(), "forbidden");
}

#[test]
fn malformed_announcements_are_refused_whole() {
    let broker = Broker::start();
    let peer = |id: &str, name: &str, cwd: &str| json!({"id": id, "name": name, "cwd": cwd});
    let long = "x".repeat(60);
    for (machine, peer, code) in [
        ("De_sk", peer("a", "a", "/"), "invalid_request"),
        ("desktop", peer(&long, "a", "/"), "invalid_id"),
        ("desktop", peer("a", "a@b", "/"), "invalid_id"),
        ("desktop", peer("a", "a\u{7}", "/"), "invalid_id"),
        ("desktop", peer("a", "a", "relative"), "invalid_path"),
    ] {
        let refused = broker.http().post("/v1/gateway/announce", &json!({"machine": machine, "peers": [peer]}));
        assert_eq!(refused.code(), code, "{machine} {peer}");
    }
    for field in ["gitRepo", "gitBranch"] {
        let mut peer = peer("a", "a", "/");
        peer[field] = json!("x".repeat(4_097));
        let refused = broker.http().post("/v1/gateway/announce", &json!({"machine": "desktop", "peers": [peer]}));
        assert_eq!(refused.code(), "invalid_request", "{field}");
    }
    assert_eq!(broker.stored(), (0, 0));
}

#[test]
fn long_summary_of_another_machine_is_cut() {
    let broker = Broker::with(&[("CLAUDE_PEERS_SUMMARY_LIMIT", "10")]);
    let peer = json!({"id": "k7xq2m", "name": "shop-api", "cwd": "/src/shop-api", "summary": "Orders and totals"});
    broker.http().post("/v1/gateway/announce", &json!({"machine": "desktop", "peers": [peer]})).json();
    let peers = broker.http().get("/v1/peers?scope=everywhere").json();
    assert_eq!(peers["peers"][0]["summary"], "Orders and", "{peers}");
}
