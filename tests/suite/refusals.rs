//! A refusal is heard, whatever its client still writes, and neither bodies nor answers take much memory.

use crate::support::{
    Broker,
    events::{Events, Peer},
    eventually,
    http::{Answer, Http},
};
use serde_json::json;
use std::{thread, time::Duration};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Writes the head of a request, and its body only when the broker has seen the head.
fn in_two_writes(http: &Http, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let length = body.len().to_string();
    let headers = [headers, &[("Content-Length", length.as_str())]].concat();
    let mut conversation = http.converse();
    conversation.say(&http.written(method, path, &headers, "")).unwrap();
    thread::sleep(Duration::from_millis(30));
    conversation.say(body.as_bytes()).unwrap_or_else(|error| panic!("{method} {path} {headers:?}: {error}"));
    conversation.answer().unwrap_or_else(|error| panic!("{method} {path} {headers:?}: {error}"))
}

#[test]
fn refusals_are_heard_by_clients_that_still_write() {
    let broker = Broker::start();
    let short = json!({"to": "nobody", "text": "x"}).to_string();
    let long = json!({"to": "nobody", "text": "x".repeat(2_000_000)}).to_string();
    for http in [broker.http(), broker.tcp()] {
        for body in [&short, &long] {
            for (status, method, path, header) in [
                (401, "POST", "/v1/send", ("Authorization", "Bearer wrong")),
                (403, "POST", "/v1/send", ("Origin", "http://evil.example")),
                (404, "POST", "/v1/nowhere", JSON),
                (405, "POST", "/v1/hello", JSON),
                (405, "PUT", "/v1/send", JSON),
                (415, "POST", "/v1/send", ("Content-Type", "text/plain")),
                (426, "POST", "/v1/send", ("claude-peers-api", "99")),
                (404, "POST", "/nowhere", JSON),
            ] {
                let headers = if header.0 == JSON.0 { vec![header] } else { vec![JSON, header] };
                assert_eq!(in_two_writes(&http, method, path, &headers, body).status, status, "{method} {path} {header:?}");
            }
        }
        assert_eq!(in_two_writes(&http, "POST", "/v1/send", &[JSON], &long).status, 413);
    }
}

#[test]
fn refused_request_keeps_its_connection() {
    let broker = Broker::start();
    let mut conversation = broker.http().converse();
    let keep = [("Connection", "keep-alive"), ("Content-Length", "2")];
    for _ in 0..3 {
        conversation.say(&broker.http().written("POST", "/v1/send", &keep, "")).unwrap();
        thread::sleep(Duration::from_millis(30));
        conversation.say(b"{}").unwrap();
        assert_eq!(conversation.answer().unwrap().status, 415);
    }
}

#[test]
fn long_facts_of_a_legacy_session_are_not_kept() {
    let broker = Broker::start();
    let facts = json!({"pid": 1, "cwd": "/", "git_root": null, "tty": "x".repeat(1_500_000), "summary": ""});
    for _ in 0..60 {
        assert_eq!(broker.http().post("/register", &facts).status, 200);
    }
    assert!(broker.memory() < 64 * 1024, "{} KiB", broker.memory());
}

#[test]
fn unread_answers_take_little_memory() {
    const CLIENTS: usize = 100;
    let broker = Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    let reader = Peer::register(&broker.http(), "reader", json!({"cwd": "/reader"}));
    let http = broker.http();
    for number in 0..100 {
        http.post("/v1/send", &json!({"to": reader.id, "text": format!("{number} {}", "x".repeat(250_000))})).json();
    }
    let page = |next: &str| http.get(&format!("/v1/history?limit=1000&after={next}"));
    let (mut next, mut read) = (Some("0".to_owned()), Vec::new());
    while let Some(after) = next {
        let answer = page(&after);
        assert!(answer.body.len() < 2_000_000, "a page is bounded: {}", answer.body.len());
        let messages = answer.json()["messages"].as_array().unwrap().clone();
        read.extend(messages.iter().map(|message| message["text"].as_str().unwrap().split(' ').next().unwrap().to_owned()));
        next = answer.json()["next"].as_str().map(str::to_owned);
    }
    assert_eq!(read, (0..100).map(|number| number.to_string()).collect::<Vec<_>>(), "the pages leave out nothing");

    let request = http.written("GET", "/v1/history?limit=1000", &[], "");
    let unread: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut conversation = http.converse();
            conversation.say(&request).unwrap();
            conversation
        })
        .collect();
    eventually("a reader that stopped gives its place up", || (page("0").status == 200).then_some(()));
    assert!(broker.memory() < 64 * 1024, "{} KiB", broker.memory());
    drop(unread);
    assert_eq!(page("0").status, 200);
}

#[test]
fn idle_watchers_take_little_memory() {
    let broker = Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    let reader = Peer::register(&broker.http(), "reader", json!({"cwd": "/reader"}));
    let http = broker.http();
    let watch = || {
        let mut watcher = Events::watch(&http);
        watcher.next().map(|_| watcher)
    };
    let watchers: Vec<_> = (0..64).map(|_| watch().unwrap()).collect();
    let refused = http.get("/v1/watch");
    assert_eq!((refused.status, refused.code().as_str()), (503, "busy"));
    for number in 0..20 {
        let text = format!("{number} {}", "x".repeat(250_000));
        http.post("/v1/send", &json!({"to": reader.id, "text": text})).json();
    }
    assert!(broker.memory() < 64 * 1024, "{} KiB", broker.memory());
    drop(watchers);
    eventually("a place is free again", watch);
}

#[test]
fn unfinished_bodies_take_little_memory() {
    const CLIENTS: usize = 300;
    let broker = Broker::start();
    Peer::register(&broker.http(), "victim", json!({"cwd": "/victim"}));
    let http = broker.http();
    let body = "x".repeat(1_500_000);
    let head = http.written("POST", "/v1/send", &[JSON, ("Content-Length", "1600000")], "");
    for _ in 0..2 {
        let well = || http.post("/v1/send", &json!({"to": "victim", "text": "x"})).status;
        let conversations: Vec<_> = thread::scope(|scope| {
            let unfinished = || {
                let mut conversation = http.converse();
                conversation.say(&head).and_then(|()| conversation.say(body.as_bytes())).unwrap();
                conversation
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(unfinished)).collect();
            assert_eq!(well(), 200, "a small body is read all the same");
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        assert!(broker.memory() < 64 * 1024, "{} KiB", broker.memory());
        let refused = http.request("POST", "/v1/send", &[JSON], &json!({"to": "victim", "text": body}).to_string());
        assert_eq!((refused.status, refused.code().as_str()), (503, "busy"));
        drop(conversations);
        assert!(broker.memory() < 64 * 1024, "{} KiB", broker.memory());
    }
}
