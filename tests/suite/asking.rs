//! Questions and answers, between two sessions and from the command line to a session.

use crate::support::{Broker, Session, events::Peer, eventually, folder};
use serde_json::{Value, json};
use std::{fs, process::Stdio, time::Duration};
use tempfile::TempDir;

struct Place {
    broker: Broker,
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { broker: Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]), folder: folder() }
    }

    fn session(&self, name: &str, open: fn(&Broker, &std::path::Path, &str) -> Session) -> Session {
        let directory = self.folder.path().join(name);
        fs::create_dir_all(&directory).unwrap();
        let mut session = open(&self.broker, &directory, name);
        session.id();
        session
    }

    /// Waits until this many messages are stored and returns the id of the newest.
    fn newest(&self, messages: usize) -> Value {
        eventually("the message is stored", || {
            let page = self.broker.http().get("/v1/history").json();
            let stored = page["messages"].as_array().unwrap();
            (stored.len() == messages).then(|| stored[0]["messageId"].clone())
        })
    }

    /// Starts `claude-peers ask worker PORT?`.
    fn ask(&self, options: &[&str]) -> std::process::Child {
        let mut command = self.broker.cli(&[&["ask", "worker", "which", "port?"], options].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// Starts a call that asks a question and returns the id of the request.
fn begin(asker: &mut Session, to: &str, seconds: u64) -> u64 {
    let arguments = json!({"targetPeerId": to, "message": "which port?", "waitForReplySeconds": seconds});
    asker.ask("tools/call", json!({"name": "send_message", "arguments": arguments}))
}

fn reply(session: &mut Session, to: &Value, text: &str, question: &Value) -> Value {
    session.tool("send_message", json!({"targetPeerId": to, "message": text, "replyTo": question}))
}

fn said(result: &Value) -> &str {
    let text = result["content"][0]["text"].as_str().unwrap();
    // Some clients show their model only the structured result.
    let structured = &result["structuredContent"];
    assert!(structured["answered"] == true || text.starts_with(structured["note"].as_str().unwrap()), "{result}");
    text
}

#[test]
fn asking_call_returns_the_answer_once() {
    for open in [Session::pulling, Session::start] {
        let place = Place::new();
        let (mut asker, mut worker) = (place.session("asker", open), place.session("worker", Session::pulling));
        let asking = begin(&mut asker, "worker", 600);
        let question = place.newest(1);
        let received = worker.tool("check_messages", json!({"waitSeconds": 60}))["messages"][0].clone();
        assert_eq!(received["id"], question);
        let long = "8080 ".repeat(5_000);
        let answer = reply(&mut worker, &received["from"]["id"], &long, &question)["messageId"].clone();

        let result = asker.answer(asking)["result"].clone();
        let known = &result["structuredContent"];
        assert_eq!((&known["answered"], &known["answer"]["id"], &known["answer"]["text"]), (&json!(true), &answer, &json!(long)));
        assert_eq!((&known["messageId"], &known["state"]), (&question, &json!("delivered")));
        assert!(said(&result).contains("8080") && known.get("incomingMessages").is_none());
        place.broker.message_once("delivered", &answer);
        assert_eq!(place.broker.message(&answer)["route"], "tool_result");
        assert!(asker.check().is_empty());
        assert!(asker.pushes_so_far().is_empty());
    }
}

#[test]
fn sessions_can_ask_each_other() {
    let place = Place::new();
    let (mut one, mut other) = (place.session("one", Session::pulling), place.session("other", Session::pulling));
    let first = begin(&mut one, "other", 600);
    let question = place.newest(1);
    other.check();
    let second = begin(&mut other, "one", 600);
    let result = one.answer(first)["result"].clone();
    let known = &result["structuredContent"];
    let counter = &known["incomingMessages"][0];
    assert_eq!((&known["answered"], &counter["text"]), (&json!(false), &json!("which port?")));
    assert!(said(&result).contains("is not answered yet") && said(&result).contains("waitSeconds"), "{result}");

    reply(&mut one, &counter["from"]["id"], "mine is 1", &counter["id"]);
    let answered = other.answer(second)["result"]["structuredContent"].clone();
    assert_eq!(answered["answer"]["text"], "mine is 1");
    let asker = place.broker.message(&question)["from"].clone();
    reply(&mut other, &asker, "mine is 2", &question);
    assert_eq!(one.tool("check_messages", json!({"waitSeconds": 60}))["messages"][0]["replyTo"], question);
}

#[test]
fn unanswered_call_reports_the_question_state() {
    let place = Place::new();
    let (mut asker, mut worker) = (place.session("asker", Session::pulling), place.session("worker", Session::pulling));
    let asking = begin(&mut asker, "worker", 1);
    let result = asker.answer(asking)["result"].clone();
    assert_eq!(
        (&result["structuredContent"]["answered"], &result["structuredContent"]["state"]),
        (&json!(false), &json!("queued"))
    );
    assert!(said(&result).contains(": it is queued: worker cannot be interrupted"), "{result}");

    for message in worker.check() {
        place.broker.message_once("delivered", &message["id"]);
    }
    let asking = begin(&mut asker, "worker", 4);
    let question = place.newest(2);
    worker.check();
    let delivered = place.broker.message_once("delivered", &question)["deliveredAt"].clone();
    // It may or may not be working on the answer.
    let known = format!("it was delivered at {}; worker has not answered yet.", delivered.as_str().unwrap());
    let result = asker.answer(asking)["result"].clone();
    assert!(said(&result).contains(&known), "{result}");

    let asking = begin(&mut asker, "worker", 600);
    let question = place.newest(3);
    worker.check();
    place.broker.message_once("delivered", &question);
    worker.close();
    let result = asker.answer(asking)["result"].clone();
    assert!(said(&result).contains("but worker is not running any more"), "{result}");

    let asking = begin(&mut asker, "worker", 600);
    let result = asker.answer(asking)["result"].clone();
    assert!(said(&result).contains("it is queued: worker is not running"), "at once: {result}");

    let everyone = json!({"targetPeerId": "@machine", "message": "hm?", "waitForReplySeconds": 5});
    assert!(asker.tool_error("send_message", everyone).contains("to one peer"));
    assert_eq!(place.broker.stored().0, 4);
}

#[test]
fn command_line_prints_the_answer() {
    for (options, restart) in [(&[][..], false), (&["--json"][..], false), (&[][..], true)] {
        let mut place = Place::new();
        let mut worker = place.session("worker", Session::pulling);
        let asking = place.ask(options);
        let question = place.newest(1);
        if restart {
            place.broker.restart();
        }
        let received = worker.tool("check_messages", json!({"waitSeconds": 60}))["messages"][0].clone();
        assert_eq!(
            (&received["id"], &received["from"]["id"], &received["text"]),
            (&question, &json!("cli"), &json!("which port?"))
        );
        let sent = reply(&mut worker, &json!("cli"), "8080", &question);
        assert!(restart || sent.get("warning").is_none(), "{sent}");

        let output = asking.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        if options.is_empty() {
            assert_eq!(String::from_utf8(output.stdout).unwrap(), "8080\n");
        } else {
            let asked: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!((&asked["question"]["messageId"], &asked["answer"]["text"]), (&question, &json!("8080")));
        }
        assert_eq!(place.broker.message(&sent["messageId"])["state"], "delivered");
    }
}

#[test]
fn answer_without_id_matches_the_only_question() {
    let place = Place::new();
    let mut worker = place.session("worker", Session::pulling);
    let mut other = place.session("other", Session::pulling);
    let call = |text: &str| json!({"targetPeerId": "cli", "message": text});
    let asking = place.ask(&[]);
    let question = place.newest(1);
    for session in [&mut worker, &mut other] {
        let said = session.tool_error("send_message", call("8080"));
        assert!(said.contains("cli has no mailbox"), "neither has seen a question: {said}");
    }
    worker.check();
    let sent = eventually("it is waited for", || {
        let result = worker.call("send_message", call("8080"));
        (result["isError"] != true).then(|| result["structuredContent"].clone())
    });
    let warning = sent["warning"].as_str().unwrap();
    assert!(warning.contains(&format!("counts as the answer to {}", question.as_str().unwrap())), "{sent}");
    let output = asking.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"8080\n"[..]), "{output:?}");
    assert_eq!(place.broker.message(&sent["messageId"])["replyTo"], question);
    assert!(worker.tool_error("send_message", call("still 8080")).contains("cli has no mailbox"), "nobody waits any more");

    let asking = [place.ask(&[]), place.ask(&[])];
    place.newest(4);
    let questions: Vec<Value> = worker.check().iter().map(|message| message["id"].clone()).collect();
    std::thread::sleep(Duration::from_millis(500)); // no event tells that both wait
    let said = worker.tool_error("send_message", call("8081"));
    assert!(questions.iter().all(|id| said.contains(id.as_str().unwrap())) && said.contains("with replyTo"), "{said}");
    for (question, text) in questions.iter().zip(["8082", "8083"]) {
        reply(&mut worker, &json!("cli"), text, question);
    }
    let answers = asking.map(|asking| String::from_utf8(asking.wait_with_output().unwrap().stdout).unwrap());
    assert!(["8082\n", "8083\n"].iter().all(|answer| answers.iter().any(|given| given == answer)), "{answers:?}");
}

#[test]
fn answer_without_id_does_not_prove_the_channel() {
    let place = Place::new();
    let http = place.broker.http();
    let worker = Peer::register(&http, "worker", json!({"cwd": "/worker", "channel": true}));
    let mut events = worker.follow(&http);
    let mut asking = place.ask(&[]);
    let question = events.next().unwrap().1["id"].clone();
    let offered = json!({"route": "channel", "messages": [{"id": question, "outcome": "offered"}]});
    worker.over(&http).post("/v1/acknowledge", &offered).json();
    let answer = json!({"to": "cli", "text": "8080", "key": "one"});
    let sent = eventually("it is waited for", || {
        Some(worker.over(&http).post("/v1/send", &answer)).filter(|sent| sent.status == 200).map(|sent| sent.json())
    });
    assert_eq!(sent["replyTo"], question);
    assert!(asking.wait().unwrap().success());
    assert_eq!(worker.over(&http).post("/v1/send", &answer).json()["messageId"], sent["messageId"], "said again");
    // The message may have been about something else, so it does not prove that the push was read.
    assert_eq!(place.broker.message(&question)["state"], "offered");
    let peers = http.get("/v1/peers?scope=machine").json();
    assert!(peers["peers"][0]["deliveryReason"].as_str().unwrap().ends_with("not confirmed yet"), "{peers}");
}

#[test]
fn late_answer_is_kept_and_unasked_one_refused() {
    let place = Place::new();
    let mut worker = place.session("worker", Session::pulling);
    let output = place.ask(&["--wait", "1"]).wait_with_output().unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(7), 0), "{why}");
    assert!(why.contains("no answer to m1-") && why.contains("worker cannot be interrupted"), "{why}");

    let question = place.newest(1);
    worker.check();
    place.broker.message_once("delivered", &question);
    let output = place.broker.cli(&["ask", "worker", "and now?", "--wait", "4"]).stderr(Stdio::piped()).spawn().unwrap();
    place.newest(2);
    worker.check();
    let why = String::from_utf8(output.wait_with_output().unwrap().stderr).unwrap();
    assert!(why.contains("yet: it was delivered at 2") && why.contains("Z; worker has not answered yet"), "{why}");
    let late = reply(&mut worker, &json!("cli"), "8080", &question);
    assert!(late["warning"].as_str().unwrap().contains("claude-peers history"), "{late}");
    let (_, history) = place.broker.cli_json(&["history"]);
    assert_eq!((&history["messages"][0]["text"], &history["messages"][0]["replyTo"]), (&json!("8080"), &question));
    assert_eq!(history["messages"][0]["state"], "queued", "nobody has read it for certain");

    let mut other = place.session("other", Session::pulling);
    let own = worker.send("other", "hello")["messageId"].clone();
    other.check();
    let call = |answered: &Value| json!({"targetPeerId": "cli", "message": "hm?", "replyTo": answered});
    for said in [worker.tool_error("send_message", call(&own)), other.tool_error("send_message", call(&own))] {
        assert!(said.contains("cli has no mailbox but for answers"), "{said}");
    }
    let said = other.tool_error("send_message", call(&question));
    assert!(said.contains("no message to or from this sender"), "somebody else was asked: {said}");
    let (exit, error) = place.broker.cli_json(&["ask", "nobody", "hm?"]);
    assert_eq!((exit, &error["error"]["code"]), (4, &json!("peer_not_found")));
    worker.close();
    let (exit, error) = place.broker.cli_json(&["ask", "worker", "still there?"]);
    assert_eq!((exit, &error["error"]["code"]), (7, &json!("no_answer")), "at once");
}

#[test]
fn inbox_shows_each_answer_until_it_is_read() {
    let broker = Broker::start();
    let http = broker.http();
    let shop = Peer::register(&http, "shop", json!({"cwd": "/src/shop"}));
    let question = http.post("/v1/send", &json!({"to": "shop", "text": "Are the tests green?"})).json();
    let inbox = |arguments: &[&str]| {
        let (code, page) = broker.cli_json(&[&["inbox"], arguments].concat());
        assert_eq!(code, 0);
        page["messages"].as_array().unwrap().iter().map(|entry| entry["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(inbox(&[]).is_empty());
    let answer = json!({"to": "cli", "text": "All green.", "replyTo": question["messageId"]});
    shop.over(&http).post("/v1/send", &answer).json();
    assert_eq!(inbox(&["--keep"]), ["All green."]);
    let text = String::from_utf8(broker.cli(&["inbox"]).output().unwrap().stdout).unwrap();
    let id = question["messageId"].as_str().unwrap();
    assert!(text.contains(&format!("shop in answer to {id}, now  new\nAll green.")), "{text}");
    assert!(inbox(&[]).is_empty(), "it is read");
    assert_eq!(inbox(&["--all"]), ["All green."]);
}
