//! The automatic summary: local at first, then generated if there is a key. It never delays anything or replaces the session's own.

use crate::support::{
    Broker, PATIENCE, Session, events::Peer, eventually, folder, git, http::read_head, mcp::Start, unused_port,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Stdio,
    sync::mpsc::{Receiver, channel},
    thread,
};

const KEY: &str = "sk-a-key-that-nobody-may-see";

/// A stand-in for the service that generates summaries. The test answers each request.
struct Endpoint {
    url: String,
    requests: Receiver<Asked>,
}

/// An unanswered request.
struct Asked {
    head: String,
    body: Value,
    stream: TcpStream,
}

impl Endpoint {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (sender, requests) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if sender.send(Asked::read(stream)).is_err() {
                    break;
                }
            }
        });
        Self { url, requests }
    }

    /// Waits for the next request.
    fn asked(&self) -> Asked {
        self.requests.recv_timeout(PATIENCE).expect("somebody asks for a summary")
    }

    fn env(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = [("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", self.url.as_str())];
        own.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }
}

impl Asked {
    fn read(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let head = read_head(&mut reader).expect("a whole request");
        let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
        let mut body = vec![0; length.unwrap().trim().parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        Self { head, body: serde_json::from_slice(&body).unwrap(), stream }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn answer(mut self, status: &str, body: &str) {
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all((head + body).as_bytes()).unwrap();
    }

    fn answer_with(self, summary: &str) {
        self.answer("200 OK", &json!({"choices": [{"message": {"role": "assistant", "content": summary}}]}).to_string());
    }
}

fn start(broker: &Broker, directory: &Path, env: Vec<(String, String)>) -> Session {
    Start { broker, directory, session_id: "session", delivery: "", env }.go()
}

/// The summary of the only session as its peers see it.
fn summary(broker: &Broker) -> String {
    broker.peers().first().and_then(|peer| peer["summary"].as_str()).unwrap_or_default().to_owned()
}

fn becomes(broker: &Broker, expected: &str) {
    eventually(&format!("the summary is {expected:?}"), || (summary(broker) == expected).then_some(()));
}

#[test]
fn git_gives_the_summary_without_a_key() {
    let place = folder();
    let [clean, changed, renamed, empty, none, detached] =
        ["clean", "changed", "renamed", "empty", "none", "detached"].map(|name| place.path().join(name));
    for repository in [&clean, &changed, &renamed, &detached] {
        git::repository(repository);
    }
    fs::write(changed.join("Cargo.toml"), "[package]").unwrap();
    fs::write(changed.join("README"), "changed").unwrap();
    fs::write(changed.join("a.rs"), "").unwrap();
    fs::write(changed.join("b.rs"), "").unwrap();
    git::git(&changed, &["checkout", "-q", "-b", "fix/login"]);
    git::git(&renamed, &["mv", "README", "READ ME"]);
    git::git(&detached, &["checkout", "-q", "--detach"]);
    fs::create_dir(&empty).unwrap();
    git::git(&empty, &["init", "-q"]);
    fs::create_dir(&none).unwrap();
    for (directory, expected) in [
        (&clean, "In clean on branch main. Last commit: first commit."),
        (
            &changed,
            "In changed (rust) on branch fix/login. Last commit: first commit. 4 files changed: README, Cargo.toml, a.rs, ….",
        ),
        (&renamed, "In renamed on branch main. Last commit: first commit. 1 file changed: READ ME."),
        (&detached, "In detached. Last commit: first commit."),
        (&empty, "In empty on branch main."),
        (&none, "In none."),
    ] {
        let broker = Broker::start();
        let mut session = start(&broker, directory, Vec::new());
        becomes(&broker, expected);
        session.tool("set_summary", json!({"summary": "my own words"}));
        assert_eq!(summary(&broker), "my own words");
    }
}

#[test]
fn variables_of_git_change_nothing() {
    let place = folder();
    let [here, elsewhere] = ["here", "elsewhere"].map(|name| place.path().join(name));
    git::repository(&here);
    git::repository(&elsewhere);
    fs::write(elsewhere.join("private.rs"), "").unwrap();
    let broker = Broker::start();
    let of_git = |name: &str, path: &Path| (name.to_owned(), path.to_str().unwrap().to_owned());
    let env = vec![of_git("GIT_DIR", &elsewhere.join(".git")), of_git("GIT_WORK_TREE", &elsewhere)];
    let _session = start(&broker, &here, env);
    becomes(&broker, "In here on branch main. Last commit: first commit.");
}

#[test]
fn with_a_key_only_facts_are_sent() {
    let (broker, place, endpoint) = (Broker::start(), folder(), Endpoint::start());
    let directory = place.path().join("poker-engine");
    git::repository(&directory);
    fs::write(directory.join("Cargo.toml"), "THE-CONTENT-OF-A-FILE").unwrap();
    fs::write(directory.join("auth.ts"), "THE-CONTENT-OF-A-FILE").unwrap();
    fs::write(directory.join(".env"), "THE-CONTENT-OF-A-FILE").unwrap();
    let mut session = start(&broker, &directory, endpoint.env(&[]));
    let asked = endpoint.asked();

    assert!(asked.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", asked.head);
    assert_eq!(asked.header("authorization"), Some(&*format!("Bearer {KEY}")));
    assert_eq!(asked.header("content-type").and_then(|kind| kind.split(';').next()), Some("application/json"));
    assert_eq!(asked.body["model"], "gpt-5.4-nano");
    let messages = asked.body["messages"].as_array().unwrap();
    let roles: Vec<_> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user"]);
    let facts: Value = serde_json::from_str(messages[1]["content"].as_str().unwrap()).unwrap();
    assert_eq!(
        facts,
        json!({
            "cwd": directory, "branch": "main", "commits": ["first commit"], "files": [".env", "Cargo.toml", "auth.ts", "README"],
            "uncommitted": 3, "project": "rust", "structure": ["Cargo.toml", "README", "auth.ts"],
        })
    );
    let sent = format!("{}{}", asked.head, asked.body);
    assert!(!sent.contains("THE-CONTENT") && !sent.contains("hello"), "contents of files were sent: {sent}");

    becomes(
        &broker,
        "In poker-engine (rust) on branch main. Last commit: first commit. 3 files changed: .env, Cargo.toml, auth.ts.",
    );
    asked.answer_with(" Dealing cards in\nthe poker engine. \u{1b}[2J");
    becomes(&broker, "Dealing cards in the poker engine. \\u{1b}[2J");
    session.tool("set_summary", json!({"summary": "my own words"}));
    assert_eq!(summary(&broker), "my own words");
}

#[test]
fn model_is_a_setting() {
    let (broker, place, endpoint) = (Broker::start(), folder(), Endpoint::start());
    let _session = start(&broker, place.path(), endpoint.env(&[("CLAUDE_PEERS_SUMMARY_MODEL", "llama-4")]));
    let asked = endpoint.asked();
    assert_eq!(asked.body["model"], "llama-4");
    asked.answer_with("Done.");
    becomes(&broker, "Done.");
}

#[test]
fn key_of_another_client_is_not_used() {
    let (place, endpoint) = (folder(), Endpoint::start());
    let start_as = |broker: &Broker, client: &str, env: &[(&str, &str)]| {
        let start = Start { broker, directory: place.path(), session_id: "session", delivery: "", env: endpoint.env(env) };
        let mut session = Session::spawn(start.command());
        session.handshake_as(client);
        session
    };
    let local = format!("In {}.", place.path().file_name().unwrap().to_str().unwrap());
    let quiet = Broker::start();
    let session = start_as(&quiet, "qwen-cli-mcp-client-claude-peers", &[]);
    becomes(&quiet, &local);
    assert_eq!(children(session.pid()), [] as [u32; 0], "no helper is started");
    let wrong = start_as(&quiet, "some-new-client", &[("CLAUDE_PEERS_SUMMARY", "always")]);
    eventually("the wrong value is logged", || wrong.log().contains("CLAUDE_PEERS_SUMMARY=\"always\"").then_some(()));

    let broker = Broker::start();
    let _session = start_as(&broker, "qwen-cli-mcp-client-claude-peers", &[("CLAUDE_PEERS_SUMMARY", "openai")]);
    endpoint.asked().answer_with("Wanted.");
    becomes(&broker, "Wanted.");
}

#[test]
fn late_summary_does_not_overwrite_the_sessions() {
    let (broker, place, endpoint) = (Broker::start(), folder(), Endpoint::start());
    let mut session = start(&broker, place.path(), endpoint.env(&[]));
    let asked = endpoint.asked();
    session.tool("set_summary", json!({"summary": "Deploying v2.1 – don't push to main"}));
    asked.answer_with("Something generated.");
    eventually("the helper is done", || children(session.pid()).is_empty().then_some(()));
    session.list();
    assert_eq!(summary(&broker), "Deploying v2.1 – don't push to main");

    // The broker applies the same rule to every client.
    let peer = Peer::register(&broker.http(), "peer", json!({}));
    let set = |summary: &str, source: &str| {
        peer.over(&broker.http()).post("/v1/set-summary", &json!({"summary": summary, "source": source})).json()
    };
    for (given, source, kept) in [
        ("local", "local", "local"),
        ("generated", "generated", "generated"),
        ("local again", "local", "generated"),
        ("own", "session", "own"),
        ("generated again", "generated", "own"),
        ("local at last", "local", "own"),
        ("", "session", ""),
        ("generated in the end", "generated", ""),
    ] {
        assert_eq!(set(given, source)["summary"], kept, "{given}");
    }
}

/// The child processes of `pid`.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path().join("children"));
    let text: String = tasks.filter_map(|file| fs::read_to_string(file).ok()).collect();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn summary_failure_is_only_logged() {
    type Fails = fn(Asked);
    let failures: [(&str, Fails, &str); 7] = [
        ("an error", |asked| asked.answer("500 Internal Server Error", r#"{"error":"overloaded"}"#), "HTTP 500"),
        ("a wrong key", |asked| asked.answer("401 Unauthorized", &format!("wrong key {KEY}")), "wrong key …"),
        ("no JSON", |asked| asked.answer("200 OK", "<html>"), "cannot be read"),
        ("no choice", |asked| asked.answer("200 OK", r#"{"choices":[]}"#), "empty summary"),
        ("only blanks", |asked| asked.answer_with(" \n "), "empty summary"),
        ("another address", |asked| asked.answer("302 Found", ""), "302"),
        ("no answer", |asked| drop(asked), "generating a summary"),
    ];
    for (what, fail, words) in failures {
        let (broker, place, endpoint) = (Broker::start(), folder(), Endpoint::start());
        let session = start(&broker, place.path(), endpoint.env(&[]));
        fail(endpoint.asked());
        stays_local(what, words, &broker, place.path(), session);
    }
    for (what, url) in
        [("nobody there", format!("http://127.0.0.1:{}/v1", unused_port())), ("no web address", "ftp://127.0.0.1/".to_owned())]
    {
        let (broker, place) = (Broker::start(), folder());
        let env = vec![("OPENAI_API_KEY".to_owned(), KEY.to_owned()), ("OPENAI_BASE_URL".to_owned(), url)];
        let session = start(&broker, place.path(), env);
        stays_local(what, "generating a summary", &broker, place.path(), session);
    }
}

fn stays_local(what: &str, words: &str, broker: &Broker, directory: &Path, mut session: Session) {
    eventually(&format!("it is logged: {what}"), || session.log().contains("generating a summary").then_some(()));
    let log = session.log();
    assert!(log.contains(words) && !log.contains(KEY), "{what}: {log}");
    assert_eq!(summary(broker), format!("In {}.", directory.file_name().unwrap().to_str().unwrap()), "{what}");
    let shown = session.call("list_peers", json!({"scope": "machine"})).to_string()
        + &session.call("check_messages", json!({})).to_string();
    assert!(!shown.contains("generat") && !shown.contains("OPENAI") && !shown.contains("isError\":true"), "{what}: {shown}");
}

#[test]
fn slow_endpoint_delays_neither_session_nor_exit() {
    let (broker, place, endpoint) = (Broker::start(), folder(), Endpoint::start());
    let mut session = start(&broker, place.path(), endpoint.env(&[]));
    let mut asked = endpoint.asked(); // never answered
    becomes(&broker, &format!("In {}.", place.path().file_name().unwrap().to_str().unwrap()));
    assert!(session.peers().is_empty());
    let sent = broker.http().post("/v1/send", &json!({"to": session.id(), "text": "hello"})).json();
    assert_eq!(session.check()[0]["id"], sent["messageId"]);

    let helpers = children(session.pid());
    let command_lines: Vec<String> =
        helpers.iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()).collect();
    assert!(command_lines.len() == 1 && command_lines[0].ends_with("claude-peers\0summarize\0"), "{command_lines:?}");

    assert!(session.close().success());
    assert_eq!(asked.stream.read(&mut [0]).unwrap_or(0), 0, "the helper ends with the session");
}

#[test]
fn helper_reports_its_missing_setting() {
    let broker = Broker::prepared(&[]);
    let summarize = |env: &[(&str, &str)], facts: &str| {
        let mut command = broker.cli(&["summarize", "--json"]);
        command.envs(env.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdin.take().unwrap().write_all(facts.as_bytes())); // it may have failed before reading it
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let key = ("OPENAI_API_KEY", KEY);
    for (env, facts, words) in [
        (&[][..], r#"{"cwd":"/"}"#, "OPENAI_API_KEY"),
        (&[key, ("OPENAI_BASE_URL", "nowhere")], r#"{"cwd":"/"}"#, "OPENAI_BASE_URL=\\\"nowhere\\\""),
        (&[key, ("OPENAI_BASE_URL", "ftp://example.org")], r#"{"cwd":"/"}"#, "OPENAI_BASE_URL=\\\"ftp://example.org"),
        (&[key, ("OPENAI_BASE_URL", "https://a b/")], r#"{"cwd":"/"}"#, "OPENAI_BASE_URL=\\\"https://a b/"),
        (&[key, ("OPENAI_BASE_URL", "http://a/?x")], r#"{"cwd":"/"}"#, "OPENAI_BASE_URL=\\\"http://a/?x"),
        (&[("OPENAI_API_KEY", "two\nlines")], r#"{"cwd":"/"}"#, "printable"),
        (&[key], "", "facts on standard input"),
        (&[key], r#"{"cwd":1}"#, "facts on standard input"),
    ] {
        let (code, said) = summarize(env, facts);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(words) && !said.contains(KEY), "{words}: {said}");
    }
}
