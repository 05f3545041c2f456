//! `watch --plain`, `watch --json` and `history --follow` in a pipe.

use super::{peer, send, take};
use crate::support::{Broker, PATIENCE};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

/// A running command, and the lines that it prints.
struct Lines {
    child: Child,
    lines: Receiver<String>,
}

impl Lines {
    fn of(broker: &Broker, arguments: &[&str]) -> Self {
        let mut child = broker.cli(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let (tell, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }

    fn next_with(&self, words: &[&str]) -> String {
        std::iter::from_fn(|| Some(self.next())).find(|line| words.iter().all(|word| line.contains(word))).unwrap()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn each_change_is_a_line() {
    let broker = Broker::start();
    let http = broker.http();
    let shop = peer(&http, "shop");
    let lines = Lines::of(&broker, &["watch"]);
    assert!(lines.next().ends_with("shop joined in /src/shop"));
    let web = peer(&http, "web");
    assert!(lines.next().ends_with("web joined in /src/web"));
    let id = send(&web.over(&http), "shop", "Which port?\nAnd which host?", None);
    let id = id.as_str().unwrap();
    assert!(lines.next().ends_with(&format!("  {id}  web → shop  queued  Which port? And which host?")));
    take(&shop.over(&http));
    assert!(lines.next().contains(&format!("  {id}  web → shop  delivered  Which port?")));
    web.over(&http).post("/v1/unregister", &json!({}));
    assert!(lines.next().ends_with("web left"));
}

#[test]
fn json_is_one_event_a_line() {
    let broker = Broker::start();
    let http = broker.http();
    let shop = peer(&http, "shop");
    let lines = Lines::of(&broker, &["watch", "--json"]);
    let next = || serde_json::from_str::<Value>(&lines.next()).unwrap();
    let first = next();
    assert_eq!((&first["event"], &first["data"]["name"]), (&json!("peer"), &json!("shop")));
    let id = send(&http, "shop", "hello", None);
    let event = std::iter::from_fn(|| Some(next())).find(|event| event["event"] == "message").unwrap();
    assert_eq!((&event["data"]["messageId"], &event["data"]["text"]), (&id, &json!("hello")));
    shop.over(&http).post("/v1/unregister", &json!({}));
    assert_eq!(std::iter::from_fn(|| Some(next())).find(|event| event["event"] == "left").unwrap()["data"], json!(shop.id));
}

#[test]
fn history_is_followed_as_filtered() {
    let broker = Broker::start();
    let http = broker.http();
    let (shop, web) = (peer(&http, "shop"), peer(&http, "web"));
    let (shop, web) = (shop.over(&http), web.over(&http));
    let question = send(&web, "shop", "one", None);
    send(&http, "shop", "two", None);
    let of_web = Lines::of(&broker, &["history", "--follow", "--peer", "web"]);
    let thread = Lines::of(&broker, &["history", "-f", "--thread", question.as_str().unwrap()]);
    let delivered = Lines::of(&broker, &["history", "--follow", "--state", "delivered"]);
    assert!(of_web.next().ends_with("queued  one") && thread.next().ends_with("queued  one"));
    let answer = send(&shop, "web", "three", Some(&question));
    send(&http, "shop", "four", None);
    send(&web, "shop", "five", Some(&answer));
    for lines in [&of_web, &thread] {
        let shown: Vec<_> = std::iter::from_fn(|| Some(lines.next())).take_while(|line| !line.ends_with("five")).collect();
        assert!(shown.iter().any(|line| line.ends_with("three")), "{shown:?}");
        assert!(!shown.iter().any(|line| line.ends_with("two") || line.ends_with("four")), "{shown:?}");
    }
    take(&shop);
    while !delivered.next().ends_with("delivered  five") {}
}

#[test]
fn restart_of_the_broker_loses_no_line() {
    let mut broker = Broker::start();
    let web = peer(&broker.http(), "web");
    peer(&broker.http(), "shop");
    let lines = Lines::of(&broker, &["history", "--follow"]);
    send(&web.over(&broker.http()), "shop", "before", None);
    lines.next_with(&["before"]);
    broker.terminate();
    // Its stream is not open yet when the message is accepted.
    broker.launch();
    for text in ["one", "two", "three"] {
        send(&web.over(&broker.http()), "shop", text, None);
    }
    for text in ["one", "two", "three"] {
        lines.next_with(&[text]);
    }
}

#[test]
fn closed_pipe_ends_it_quietly() {
    let broker = Broker::start();
    let http = broker.http();
    peer(&http, "shop");
    let mut child = broker.cli(&["watch"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    drop(output);
    peer(&http, "web");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
}

#[test]
fn absent_broker_is_said_at_once() {
    let broker = Broker::prepared(&[]);
    for arguments in [&["watch"][..], &["history", "--follow"]] {
        assert_eq!(broker.cli(arguments).output().unwrap().status.code(), Some(3), "{arguments:?}");
    }
}

#[test]
fn followed_history_begins_where_it_is_asked_to() {
    let broker = Broker::start();
    let http = broker.http();
    peer(&http, "shop");
    let web = peer(&http, "web").over(&http);
    send(&web, "shop", "old", None);
    for arguments in [&["history", "--follow", "--peer", "cli"][..], &["history", "--follow", "--state", "expired"]] {
        let lines = Lines::of(&broker, arguments);
        // Its first line shows that it listens, so the old message would have come before.
        let shown = std::iter::from_fn(|| {
            send(&http, "shop", &format!("{arguments:?} {}", stored(&broker)), None);
            lines.lines.recv_timeout(std::time::Duration::from_millis(200)).ok().or(Some(String::new()))
        });
        if arguments.contains(&"cli") {
            let first = shown.take(100).find(|line| !line.is_empty()).unwrap();
            assert!(!first.ends_with("old"), "{first}");
        } else {
            assert!(shown.take(5).all(|line| line.is_empty()));
        }
    }
}

fn stored(broker: &Broker) -> i64 {
    broker.count("SELECT count(*) FROM message")
}
