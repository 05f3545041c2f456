//! A session keeps its peer id through restarts of every process, and no other session gets it.

use crate::support::{Broker, Session, broker::signal, events::Peer, eventually, folder, mcp::Start};
use serde_json::{Value, json};
use std::{path::Path, process::Command, time::Duration};

fn start<'a>(broker: &'a Broker, directory: &'a Path, session_id: &'a str) -> Start<'a> {
    Start { broker, directory, session_id, delivery: "", env: Vec::new() }
}

/// A session in its own `claude` process.
fn under_claude(broker: &Broker, directory: &Path, session_id: &str) -> Session {
    let mut session = Session::spawn(start(broker, directory, session_id).under_claude(&[], &[]));
    session.handshake();
    session
}

fn myself(session: &mut Session) -> Value {
    session.list()["self"].clone()
}

/// A session's own entry after it has set a summary, which must be kept too.
fn introduced(session: &mut Session) -> Value {
    session.tool("set_summary", json!({"summary": "Deploying v2.1"}));
    myself(session)
}

/// The peers as the user sees them.
fn listed(broker: &Broker) -> Vec<Value> {
    broker.peers()
}

/// Asserts that others see the same session.
fn assert_same(before: &Value, after: &Value) {
    for field in ["id", "name", "summary", "registeredAt"] {
        assert_eq!(before[field], after[field], "{field}");
    }
}

// --- the same peer ---

#[test]
fn session_keeps_its_id_when_broker_is_killed() {
    let (mut broker, place) = (Broker::start(), folder());
    let mut session = Session::start(&broker, place.path(), "session-a");
    let before = introduced(&mut session);
    for _ in 0..3 {
        broker.restart();
        let after = myself(&mut session);
        assert_same(&before, &after);
        assert_eq!(after["status"], "connected");
    }
    broker.cli_json(&["send", before["id"].as_str().unwrap(), "still there?"]);
    assert_eq!(session.pushed()["content"], "still there?");
}

#[test]
fn resumed_session_keeps_its_id_and_mail() {
    let (broker, place) = (Broker::start(), folder());
    for ended in ["closed", "terminated", "killed"] {
        let open = || Session::pulling(&broker, place.path(), "session-a");
        let mut session = open();
        let before = introduced(&mut session);
        match ended {
            "closed" => assert!(session.close().success()),
            "terminated" => {
                signal(session.pid(), "TERM");
                session.wait();
            }
            _ => session.kill(),
        }
        eventually("it has left the list", || listed(&broker).is_empty().then_some(()));

        let (_, sent) = broker.cli_json(&["send", before["name"].as_str().unwrap(), ended]);
        let warning = sent["warning"].as_str().unwrap();
        assert!(warning.contains("is not running") && warning.contains("until"), "{ended}: {warning}");
        let mut session = open();
        let mail = session.check();
        assert_eq!(mail.len(), 1, "{ended}: {mail:?}");
        assert_eq!((&mail[0]["id"], &mail[0]["text"], mail[0].get("repeat")), (&sent["messageId"], &json!(ended), None));
        assert_same(&before, &myself(&mut session));
    }
}

#[test]
fn session_resumed_elsewhere_keeps_its_id() {
    let (broker, place) = (Broker::start(), folder());
    let mut session = under_claude(&broker, place.path(), "session-a");
    let before = introduced(&mut session);
    assert_eq!(before["pid"], session.pid(), "the claude process is what a user knows it by");
    session.kill();
    let mut session = under_claude(&broker, place.path(), "session-a");
    let after = myself(&mut session);
    assert_same(&before, &after);
    assert_eq!(after["pid"], session.pid());
}

#[test]
fn session_that_its_agent_left_is_resumed_elsewhere() {
    let (broker, place) = (Broker::start(), folder());
    // The agent process lives on without the server, as after `/mcp disable`.
    let mut first = Session::spawn(start(&broker, place.path(), "session-a").claude(r#""$SERVER"; read -r _"#, &[]));
    first.handshake();
    let before = introduced(&mut first);
    signal(first.server_pid(), "TERM");
    eventually("it has left the list", || listed(&broker).is_empty().then_some(()));
    let mut elsewhere = under_claude(&broker, place.path(), "session-a");
    assert_same(&before, &myself(&mut elsewhere));
}

#[test]
fn cleared_session_keeps_its_id_over_server_restart() {
    let (broker, place) = (Broker::start(), folder());
    // `/clear` gives the session another id, which a restarted server finds in its environment.
    let claude = start(&broker, place.path(), "session-a").under_claude(&[], &["session-b", "session-c"]);
    let mut session = Session::spawn(claude);
    session.handshake();
    let before = introduced(&mut session);
    for _ in 0..2 {
        session.restart_server();
        assert_same(&before, &myself(&mut session));
    }
    assert_eq!(listed(&broker).len(), 1);
}

#[test]
fn newer_server_of_a_session_takes_over() {
    let (broker, place) = (Broker::start(), folder());
    let pipe = place.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // The older server keeps running beside the newer one, which starts when a line arrives.
    let script =
        format!(r#""$SERVER" <>'{0}' >/dev/null & read -r line; echo "$line" >'{0}'; read -r _; "$SERVER""#, pipe.display());
    let mut session = Session::spawn(start(&broker, place.path(), "session-a").claude(&script, &[]));
    session
        .ask("initialize", json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "claude-code"}}));
    let before = eventually("the older server is registered", || listed(&broker).pop());
    session.say_raw("\n");
    session.handshake();
    assert_eq!(before["id"], *session.id());
    assert_eq!(listed(&broker).len(), 1);
    eventually("the older server knows", || session.log().contains("another process serves this session now").then_some(()));
}

#[test]
fn returning_session_keeps_an_untaken_name() {
    let (broker, place) = (Broker::start(), folder());
    let directory = place.path().join("app");
    std::fs::create_dir(&directory).unwrap();
    let mut first = Session::pulling(&broker, &directory, "first");
    let id = first.id();
    first.close();
    let mut second = Session::pulling(&broker, &directory, "second");
    assert_eq!(myself(&mut second)["name"], "app");
    let mut first = Session::pulling(&broker, &directory, "first");
    let me = myself(&mut first);
    assert_eq!((&me["id"], &me["name"]), (&json!(id), &json!("app-2")));
}

// --- another peer ---

#[test]
fn second_resumption_is_a_separate_peer() {
    let (broker, place) = (Broker::start(), folder());
    let open: [fn(&Broker, &Path, &str) -> Session; 2] = [under_claude, Session::pulling];
    for (open, id) in open.into_iter().zip(["session-a", "session-b"]) {
        let mut first = open(&broker, place.path(), id);
        let before = introduced(&mut first);
        let mut beside = open(&broker, place.path(), id);
        assert_ne!(beside.id(), before["id"]);
        assert_same(&before, &myself(&mut first));
    }
}

#[test]
fn restarted_server_returns_to_its_own_mailbox() {
    let (broker, place) = (Broker::start(), folder());
    let mut first = Session::spawn(start(&broker, place.path(), "session-a").under_claude(&[], &["session-a"]));
    first.handshake();
    let before = introduced(&mut first);
    let mut beside = under_claude(&broker, place.path(), "session-a");
    let other = beside.id();
    beside.kill();
    broker.cli_json(&["send", &other, "for the other resumption"]);
    first.restart_server();
    assert_same(&before, &myself(&mut first));
}

#[test]
fn every_resumption_of_a_session_finds_mail() {
    let (broker, place) = (Broker::start(), folder());
    let open = || Session::pulling(&broker, place.path(), "session-a");
    // One after the other, because the one that registered first is resumed first.
    let [(first, a), (second, b)] = [(); 2].map(|()| {
        let mut session = open();
        let id = session.id();
        (session, id)
    });
    let before = [a, b];
    assert!(first.close().success() && second.close().success());
    eventually("both have left the list", || listed(&broker).is_empty().then_some(()));
    // Mail waits for the second alone, so that one is resumed; then for both.
    for (recipients, expected) in [(&before[1..], &before[1..]), (&before[..], &before[..])] {
        for id in recipients {
            broker.cli_json(&["send", id, &format!("for {id}")]);
        }
        let resume = |before: usize| {
            let session = open();
            eventually("it is listed", || (listed(&broker).len() > before).then_some(()));
            session
        };
        let mut resumed: Vec<Session> = (0..expected.len()).map(resume).collect();
        for (session, id) in resumed.iter_mut().zip(expected) {
            let mail: Vec<_> = session.check().iter().map(|message| message["text"].clone()).collect();
            assert_eq!((session.id(), mail), (id.clone(), vec![json!(format!("for {id}"))]));
        }
        assert!(resumed.into_iter().all(|session| session.close().success()));
        eventually("they have left the list", || listed(&broker).is_empty().then_some(()));
    }
}

#[test]
fn living_session_stays_with_its_holder() {
    let (broker, place) = (Broker::start(), folder());
    let mut session = under_claude(&broker, place.path(), "session-a");
    let before = introduced(&mut session);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", before["pid"])).unwrap();
    let started: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    for (transport, http) in [("tcp", broker.tcp()), ("unix", broker.http())] {
        let facts = json!({"sessionId": "session-a", "host": {"pid": before["pid"], "started": started}});
        let stranger = Peer::register(&http, transport, facts);
        let events = stranger.follow(&http);
        assert_ne!(stranger.id, before["id"], "{transport}");
        broker.cli_json(&["send", before["id"].as_str().unwrap(), transport]);
        let taken = stranger.over(&http).post("/v1/take", &json!({"lease": "l", "route": "check_messages"}));
        assert_eq!(taken.json()["messages"], json!([]), "{transport}");
        assert_eq!(session.check()[0]["text"], transport);
        drop(events);
        stranger.over(&http).post("/v1/unregister", &json!({}));
    }
    assert_same(&before, &myself(&mut session));
    // The stranger named the session, too, but that one was it first.
    session.kill();
    let mut session = under_claude(&broker, place.path(), "session-a");
    assert_same(&before, &myself(&mut session));
}

// --- presence ---

#[test]
fn stopped_session_stays_listed_over_broker_restart() {
    let (mut broker, place) = (Broker::start(), folder());
    let mut session = Session::pulling(&broker, place.path(), "session-a");
    let before = introduced(&mut session);
    signal(session.pid(), "STOP");
    assert_eq!(listed(&broker)[0]["status"], "connected");
    broker.restart();
    assert_eq!(listed(&broker)[0]["status"], "reconnecting");
    let (_, sent) = broker.cli_json(&["send", before["name"].as_str().unwrap(), "hello"]);
    assert!(sent["warning"].as_str().unwrap().contains("is reconnecting"), "{sent}");
    signal(session.pid(), "CONT");
    assert_eq!(session.check()[0]["text"], "hello");
    assert_same(&before, &myself(&mut session));
}

#[test]
fn session_is_unlisted_when_its_server_exits() {
    let (broker, place) = (Broker::start(), folder());
    let mut session = Session::pulling(&broker, place.path(), "session-a");
    session.id();
    assert_eq!(listed(&broker).len(), 1);
    session.close();
    assert_eq!(listed(&broker), [] as [Value; 0]);
}

#[test]
fn only_sessions_long_gone_are_forgotten() {
    let (mut broker, place) = (Broker::start(), folder());
    let open = |session: &str| Session::pulling(&broker, place.path(), session);
    let (mut living, mut gone) = (open("session-living"), open("session-gone"));
    let (before, gone_id) = (introduced(&mut living), gone.id());
    gone.close();
    signal(living.pid(), "STOP"); // it cannot reconnect before the broker's maintenance, which runs at its start
    broker.restart_later(Duration::from_secs(40 * 86_400));
    let remembered = format!("SELECT count(*) FROM peer WHERE id = '{gone_id}'");
    eventually("the session that is gone is forgotten", || (broker.count(&remembered) == 0).then_some(()));
    assert_eq!(listed(&broker).len(), 1);
    signal(living.pid(), "CONT");
    let after = myself(&mut living);
    assert_eq!(["id", "name", "summary"].map(|field| &after[field]), ["id", "name", "summary"].map(|field| &before[field]));
}

// --- the channel, by the start flags of the claude process ---

#[test]
fn start_flags_or_setting_enable_the_channel() {
    let (broker, place) = (Broker::start(), folder());
    let flag = "--dangerously-load-development-channels";
    let cases = [
        (vec![flag, "server:claude-peers"], "", "channel", "named in the start flags"),
        (vec!["--continue", flag, "server:other", "server:claude-peers"], "auto", "channel", "named in the start flags"),
        (vec![], "channel", "channel", "asked for by CLAUDE_PEERS_DELIVERY"),
        (vec![], "", "pull", "no inbox, and no channel"),
        (vec![flag, "server:other"], "", "pull", "no inbox, and no channel"),
        (vec![flag, "server:claude-peers"], "pull", "pull", "asked for by CLAUDE_PEERS_DELIVERY"),
    ];
    for (number, (flags, choice, delivery, reason)) in cases.into_iter().enumerate() {
        let id = format!("session-{number}");
        let claude = Start { delivery: choice, ..start(&broker, place.path(), &id) }.under_claude(&flags, &[]);
        let mut session = Session::spawn(claude);
        session.handshake();
        let me = myself(&mut session);
        assert_eq!(me["delivery"], delivery, "{flags:?} {choice:?}");
        assert!(me["deliveryReason"].as_str().unwrap().contains(reason), "{flags:?} {choice:?}: {me}");
        let (_, sent) = broker.cli_json(&["send", me["name"].as_str().unwrap(), "hello"]);
        match delivery {
            "channel" => assert_eq!(session.pushed()["meta"]["message_id"], sent["messageId"]),
            _ => assert_eq!(session.check()[0]["id"], sent["messageId"]),
        }
    }
}

// --- nobody else ---

fn peer(broker: &Broker, name: &str) -> Peer {
    Peer::register(&broker.http(), name, json!({"cwd": format!("/srv/{name}")}))
}

#[test]
fn invalid_or_outdated_secret_is_refused() {
    let broker = Broker::start();
    let peer = peer(&broker, "alice");
    assert_eq!(peer.again(&broker.http()).id, peer.id);
    let outdated = format!("Bearer {}", peer.secret);
    let before = broker.stored();
    for authorization in ["Bearer nobody", "Bearer ", "Bearer", "Basic abc", "", &outdated] {
        for (path, body) in [
            ("/v1/take", json!({"lease": "x", "route": "check_messages"})),
            ("/v1/acknowledge", json!({"route": "check_messages", "messages": []})),
            ("/v1/set-summary", json!({"summary": "mine", "source": "session"})),
            ("/v1/send", json!({"to": peer.id, "text": "hello"})),
            ("/v1/unregister", json!({})),
            ("/v1/register", json!({"client": {"name": "x", "version": "1"}, "instance": "x", "pid": 1, "cwd": "/"})),
            ("/v1/stop", json!({})),
        ] {
            let headers = [("Authorization", authorization), ("Content-Type", "application/json")];
            let answer = broker.http().request("POST", path, &headers, &body.to_string());
            assert_eq!((answer.status, &*answer.code()), (401, "unauthorized"), "{path} with {authorization:?}");
            assert!(
                authorization.len() < 10 || !answer.body.contains(&authorization[7..]),
                "a secret is not repeated: {}",
                answer.body
            );
        }
    }
    for (path, body) in [("/v1/take", json!({"lease": "x", "route": "hook"})), ("/v1/unregister", json!({}))] {
        assert_eq!(broker.http().post(path, &body).status, 401, "{path} is for peers");
    }
    assert_eq!(broker.stored(), before);
    assert_eq!(listed(&broker)[0]["summary"], "");
}

#[test]
fn peer_cannot_act_for_another() {
    let broker = Broker::start();
    let peers = ["alice", "bob", "mallory"].map(|name| peer(&broker, name));
    let [as_alice, as_bob, as_mallory] = peers.each_ref().map(|peer| peer.over(&broker.http()));
    let [alice, bob, mallory] = peers;
    let sent = as_alice.post("/v1/send", &json!({"to": bob.id, "text": "secret plan", "from": mallory.id})).json();
    assert_eq!(sent["from"], *alice.id, "who sent it is known by the secret, whatever the body says");
    let id = &sent["messageId"];
    let path = format!("/v1/messages/{}", id.as_str().unwrap());

    let answer = as_mallory.get(&path);
    assert_eq!((answer.status, &*answer.code()), (403, "forbidden"));
    assert!(!answer.body.contains("secret plan"));
    for history in ["/v1/history", &format!("/v1/history?peer={}", bob.id)] {
        assert_eq!(as_mallory.get(history).json()["messages"], json!([]));
    }
    let take = json!({"lease": "mine", "route": "check_messages"});
    assert_eq!(as_mallory.post("/v1/take", &take).json()["messages"], json!([]));
    for outcome in ["offered", "announced", "delivered", "released"] {
        let acknowledge = json!({"route": "check_messages", "messages": [{"id": id, "outcome": outcome}]});
        assert_eq!(as_mallory.post("/v1/acknowledge", &acknowledge).json()["changed"], 0, "{outcome}");
    }
    let reply = as_mallory.post("/v1/send", &json!({"to": alice.id, "text": "yes", "replyTo": id}));
    assert_eq!((reply.status, &*reply.code()), (404, "message_not_found"));
    assert_eq!(as_mallory.post("/v1/stop", &json!({})).code(), "forbidden");

    let untouched = broker.message(id);
    assert_eq!((&untouched["state"], &untouched["to"]), (&json!("queued"), &json!(bob.id)));
    assert_eq!(as_bob.get(&path).json()["text"], "secret plan");
    assert_eq!(as_bob.post("/v1/take", &take).json()["messages"][0]["id"], *id, "and it still waits for its recipient");
}
