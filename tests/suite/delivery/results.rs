//! Mail in tool results, which is certain to be seen, and calls that wait.

use super::{Scene, assert_nothing_more, carried, ids, messages_of, other_tools, prove_channel};
use crate::support::{PATIENCE, events::Peer, eventually, mcp::Start};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

#[test]
fn any_tool_result_carries_mail_once() {
    let scene = Scene::new();
    let (mut asker, mut worker) = (scene.pulling("asker"), scene.pulling("worker"));
    for (tool, arguments) in other_tools() {
        let sent = [asker.send("worker", "one")["messageId"].clone(), asker.send("worker", "two")["messageId"].clone()];
        worker.tool_error("list_peers", json!({})); // an error neither carries nor loses mail
        let messages = carried(&mut worker, tool, &arguments);
        assert_eq!(ids(&messages), sent, "{tool}");
        assert!(messages.iter().all(|message| message.get("repeat").is_none()), "{tool}: {messages:?}");
        for id in &sent {
            assert_eq!(scene.broker.message_once("delivered", id)["route"], "tool_result", "{tool}");
        }
        assert_nothing_more(&mut worker);
    }
}

#[test]
fn mail_beside_a_result_is_readable() {
    let scene = Scene::new();
    let (mut asker, mut worker) = (scene.pulling("asker"), scene.pulling("worker"));
    asker.send("worker", "one\ntwo");
    let text = eventually("a result carries the message", || {
        let result = worker.call("list_peers", json!({"scope": "machine"}));
        result["content"][1]["text"].as_str().map(str::to_owned)
    });
    let (heading, body) = text.split_once("\nid ").unwrap();
    assert_eq!(heading, format!("📨 Message from peer {} (asker):", asker.id()));
    assert!(body.ends_with("\n```\none\ntwo\n```"), "{text}");
}

#[test]
fn waiting_call_gets_the_message_without_a_push() {
    let scene = Scene::new();
    let (mut asker, mut worker) = (scene.pulling("asker"), scene.pushed("worker"));
    prove_channel(&scene, &mut asker, &mut worker, "worker");
    let wait = worker.ask("tools/call", json!({"name": "check_messages", "arguments": {"waitSeconds": 3_600}}));
    // No event tells when the broker knows of the wait. Messages sent before go through the channel.
    let mut through_channel = Vec::new();
    let answered = eventually("a message answers the wait", || {
        let id = asker.send("worker", "ready")["messageId"].clone();
        let message = eventually("it is handed over", || Some(scene.broker.message(&id)).filter(|m| m["state"] != "queued"));
        if message["route"] == "check_messages" {
            return Some(id);
        }
        through_channel.push(id);
        None
    });
    let messages = messages_of(&worker.answer(wait)["result"]);
    assert_eq!((ids(&messages), messages[0].get("repeat")), (vec![answered], None));
    let pushed: Vec<_> = worker.pushes_so_far().iter().map(|push| push["meta"]["message_id"].clone()).collect();
    assert_eq!(pushed, through_channel);
    assert_nothing_more(&mut worker);
}

#[test]
fn cancelled_wait_neither_loses_nor_repeats_mail() {
    let scene = Scene::new();
    let (mut asker, mut worker) = (scene.pulling("asker"), scene.pulling("worker"));
    for round in 0..30 {
        let wait = worker.ask("tools/call", json!({"name": "check_messages", "arguments": {"waitSeconds": 3_600}}));
        let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": wait}});
        // The cancellation comes before, after or at the same time as the message.
        let id = match round % 3 {
            0 => {
                worker.say(&cancel);
                asker.send("worker", "hello")["messageId"].clone()
            }
            1 => {
                let id = asker.send("worker", "hello")["messageId"].clone();
                worker.say(&cancel);
                id
            }
            _ => thread::scope(|scope| {
                let sending = scope.spawn(|| asker.send("worker", "hello")["messageId"].clone());
                worker.say(&cancel);
                sending.join().unwrap()
            }),
        };
        // The call may have been answered anyway, with the message in the answer.
        let mut look = || {
            let mut shown = worker.check();
            let answer = worker.answered(wait);
            shown.extend(answer.iter().flat_map(|answer| messages_of(&answer["result"])));
            shown
        };
        let mut shown = eventually("the message is shown", || Some(look()).filter(|shown| !shown.is_empty()));
        shown.extend(look());
        assert_eq!((ids(&shown), shown[0].get("repeat")), (vec![id.clone()], None), "round {round}");
        scene.broker.message_once("delivered", &id);
    }
}

/// The answer to one of them would count as the other's, too.
#[test]
fn calls_with_the_same_id_lose_no_mail() {
    let scene = Scene::new();
    let (mut asker, mut worker) = (scene.pulling("asker"), scene.pulling("worker"));
    let (mut sent, mut shown) = (Vec::new(), Vec::new());
    for round in 0..60 {
        sent.push(asker.send("worker", &format!("hello {round}"))["messageId"].clone());
        let call = |name: &str, arguments: Value| {
            let params = json!({"name": name, "arguments": arguments});
            json!({"jsonrpc": "2.0", "id": 1_000_000 + round, "method": "tools/call", "params": params})
        };
        let check = call("check_messages", json!({}));
        let again = match round % 3 {
            0 => check.clone(),
            1 => call("list_peers", json!({"scope": "machine"})),
            _ => json!({"jsonrpc": "2.0", "id": 1_000_000 + round, "method": "ping"}),
        };
        if round % 2 == 0 {
            worker.say(&check);
            worker.say(&again);
        } else {
            let cancel =
                json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1_000_000 + round}});
            worker.say(&check);
            worker.say(&cancel);
            worker.say(&again);
        }
    }
    eventually("every message is shown", || {
        shown.extend(worker.check());
        for round in 0..60 {
            let answers = std::iter::from_fn(|| worker.answered(1_000_000 + round));
            for result in answers.map(|mut answer| answer["result"]["structuredContent"].take()) {
                let lists = ["messages", "incomingMessages"].map(|key| result[key].as_array().cloned().unwrap_or_default());
                shown.extend(lists.concat());
            }
        }
        sent.iter().all(|id| ids(&shown).contains(id)).then_some(())
    });
    assert_eq!(shown.len(), sent.len(), "{shown:?}");
}

#[test]
fn waits_cancelled_back_to_back_strand_no_mail() {
    let scene = Scene::new();
    let relay = slow_acknowledgements(scene.broker.socket(), &scene.directory("relay"));
    let (mut asker, directory) = (scene.pulling("asker"), scene.directory("worker"));
    let env = vec![("CLAUDE_PEERS_SOCKET".to_owned(), relay.to_str().unwrap().to_owned())];
    let start = Start { broker: &scene.broker, directory: &directory, session_id: "worker", delivery: "pull", env };
    let mut worker = start.go();
    worker.id();
    let (mut sent, mut waits) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        sent.push(asker.send("worker", "hello")["messageId"].clone());
        for _ in 0..4 {
            // The message is taken again while the answer to its release is still on the way.
            let wait = worker.ask("tools/call", json!({"name": "check_messages", "arguments": {"waitSeconds": 3_600}}));
            worker.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": wait}}));
            waits.push(wait);
        }
    }
    let mut shown = Vec::new();
    eventually("every message is shown", || {
        shown.extend(worker.check());
        for wait in &waits {
            shown.extend(worker.answered(*wait).iter().flat_map(|answer| messages_of(&answer["result"])));
        }
        sent.iter().all(|id| ids(&shown).contains(id)).then_some(())
    });
    assert_eq!(shown.len(), sent.len(), "{shown:?}");
}

#[test]
fn server_displaced_before_its_stream_stands_aside() {
    let scene = Scene::new();
    let (seen, requests) = mpsc::channel();
    let (http, is_first) = (scene.broker.http(), Arc::new(AtomicBool::new(true)));
    let path = relay(scene.broker.socket(), &scene.directory("relay"), move || {
        let (seen, http, is_first) = (seen.clone(), http.clone(), is_first.clone());
        let look = move |request: &[u8]| {
            let request = String::from_utf8_lossy(request);
            if request.starts_with("GET /v1/events") && is_first.swap(false, Ordering::SeqCst) {
                let secret = request.lines().find_map(|line| line.strip_prefix("authorization: Bearer ")).unwrap();
                Peer::register(&http.as_peer(secret), "rival", json!({"sessionId": "worker"}));
            }
            let _ = seen.send(request.lines().next().unwrap_or_default().to_owned());
        };
        (Box::new(look), Box::new(|_| {}))
    });
    let env = vec![("CLAUDE_PEERS_SOCKET".to_owned(), path.to_str().unwrap().to_owned())];
    let directory = scene.directory("worker");
    let mut worker = Start { broker: &scene.broker, directory: &directory, session_id: "worker", delivery: "pull", env }.go();
    while !requests.recv_timeout(PATIENCE).unwrap().starts_with("GET /v1/events") {}
    let next = requests.recv_timeout(Duration::from_secs(1));
    assert!(next.is_err(), "it leaves the session to the other server: {next:?}");
    worker.call("list_peers", json!({"scope": "machine"})); // a call brings it back
}

#[test]
fn call_after_mail_gets_the_next_message() {
    let scene = Scene::new();
    let path = relay(scene.broker.socket(), &scene.directory("relay"), || {
        let look = |request: &[u8]| {
            if is_acknowledgement(request) {
                thread::sleep(SLOW);
            }
        };
        (Box::new(look), Box::new(|_| {}))
    });
    let env = vec![("CLAUDE_PEERS_SOCKET".to_owned(), path.to_str().unwrap().to_owned())];
    let (mut asker, directory) = (scene.pulling("asker"), scene.directory("worker"));
    let mut worker = Start { broker: &scene.broker, directory: &directory, session_id: "worker", delivery: "pull", env }.go();
    worker.id();
    let first = asker.send("worker", "one")["messageId"].clone();
    assert_eq!(ids(&carried(&mut worker, "list_peers", &json!({"scope": "machine"}))), [first]);
    let second = asker.send("worker", "two")["messageId"].clone();
    assert_eq!(ids(&worker.check()), [second], "the first one's acknowledgement is still on its way");
}

/// How long a relay keeps something back.
const SLOW: Duration = Duration::from_millis(100);

fn is_acknowledgement(request: &[u8]) -> bool {
    request.starts_with(b"POST /v1/acknowledge")
}

/// A socket in `folder` that leads to `socket`, and keeps back each answer to an acknowledgement for a while.
fn slow_acknowledgements(socket: PathBuf, folder: &Path) -> PathBuf {
    relay(socket, folder, || {
        let (acknowledges, is_slow) = mpsc::channel();
        let look = move |request: &[u8]| {
            if is_acknowledgement(request) {
                let _ = acknowledges.send(());
            }
        };
        let wait = move |_: &[u8]| {
            if is_slow.try_recv().is_ok() {
                thread::sleep(SLOW);
            }
        };
        (Box::new(look), Box::new(wait))
    })
}

/// Sees what passes a relay before it goes on.
type Look = Box<dyn FnMut(&[u8]) + Send>;

/// A socket in `folder` that leads to `socket`. `looks` makes those of a connection: for requests and for answers.
fn relay(socket: PathBuf, folder: &Path, mut looks: impl FnMut() -> (Look, Look) + Send + 'static) -> PathBuf {
    let path = folder.join("relay.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut broker) = (client.unwrap(), UnixStream::connect(&socket).unwrap());
            let (mut answers, mut to_client) = (broker.try_clone().unwrap(), client.try_clone().unwrap());
            let (requests, replies) = looks();
            thread::spawn(move || copy(&mut answers, &mut to_client, replies));
            thread::spawn(move || copy(&mut client, &mut broker, requests));
        }
    });
    path
}

/// Copies what comes, after `look` at it, until either end is gone.
fn copy(from: &mut UnixStream, to: &mut UnixStream, mut look: Look) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        look(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
}
