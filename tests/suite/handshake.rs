//! The handshake and the end of a session: answers before the first tool call, and no process left behind.

use crate::support::{Broker, PATIENCE, Session, broker::signal, eventually, folder, folder_in, git, mcp::Start};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

/// A revision of MCP in which a server is not registered as a channel.
const WITHOUT_CHANNELS: &str = "2026-07-28";
/// Most characters of the definitions and instructions together. The promise is 900 tokens of o200k; prose and JSON have 4.4
/// characters per token there (2,363 characters are 534 tokens) and never fewer than 3. To count tokens after a change, pipe the
/// output of `four_tools_fit_their_token_budget` into
/// `python3 -c 'import sys, tiktoken; print(len(tiktoken.get_encoding("o200k_base").encode(sys.stdin.read())))'`.
const MOST_CHARACTERS: usize = 900 * 3;

fn start<'a>(broker: &'a Broker, directory: &'a Path) -> Start<'a> {
    Start { broker, directory, session_id: "session-a", delivery: "channel", env: Vec::new() }
}

/// A server without a running broker.
fn alone(directory: &Path) -> (Broker, Session) {
    let broker = Broker::prepared(&[]);
    let session = Session::spawn(start(&broker, directory).command());
    (broker, session)
}

fn initialize(revision: &str) -> Value {
    json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "claude-code", "version": "2.1.330"}})
}

// --- the answers ---

#[test]
fn revision_without_channels_is_never_offered() {
    let place = folder();
    let (_broker, mut session) = alone(place.path());
    let meta =
        json!({"io.modelcontextprotocol/protocolVersion": WITHOUT_CHANNELS, "io.modelcontextprotocol/clientCapabilities": {}});
    let mut opening = initialize(WITHOUT_CHANNELS);
    opening["_meta"] = meta.clone();
    let call = json!({"name": "no_such_tool", "arguments": {}, "_meta": meta});
    for (method, params, works) in [
        ("server/discover", json!({"_meta": meta}), false),
        ("initialize", opening, true),
        ("server/discover", json!({"_meta": meta}), false),
        ("ping", json!({"_meta": meta}), true),
        ("tools/list", json!({"_meta": meta}), true),
        ("tools/call", call, false),
        ("no/such/method", json!({"_meta": meta}), false),
    ] {
        let id = session.ask(method, params);
        let answer = session.answer(id);
        assert_eq!(answer.get("result").is_some(), works, "{method}: {answer}");
        assert!(!answer.to_string().contains(WITHOUT_CHANNELS), "{method}: {answer}");
    }
}

#[test]
fn every_negotiated_revision_has_channels() {
    let place = folder();
    let newest = "2025-11-25";
    for (asked, answered) in [
        (newest, newest),
        ("2025-06-18", "2025-06-18"),
        ("2025-03-26", "2025-03-26"),
        ("2024-11-05", "2024-11-05"),
        (WITHOUT_CHANNELS, newest),
        ("2099-01-01", newest),
        ("1999-01-01", newest),
        ("latest", newest),
        ("", newest),
    ] {
        let (_broker, mut session) = alone(place.path());
        let id = session.ask("initialize", initialize(asked));
        let result = session.answer(id)["result"].clone();
        assert_eq!(result["protocolVersion"], answered, "asked for {asked:?}: {result}");
        assert_eq!(result["capabilities"]["experimental"]["claude/channel"], json!({}), "{result}");
        assert_eq!(result["serverInfo"]["name"], "claude-peers", "the name that the start flag has to give: {result}");
    }
}

#[test]
fn four_tools_fit_their_token_budget() {
    let place = folder();
    let (_broker, mut session) = alone(place.path());
    let opening = session.handshake();
    let list = session.ask("tools/list", json!({}));
    let tools = session.answer(list)["result"]["tools"].clone();
    let parameters = |tool: &Value| {
        let schema = &tool["inputSchema"];
        let names: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        (tool["name"].as_str().unwrap().to_owned(), names, schema["required"].clone())
    };
    let published: Vec<_> = tools.as_array().unwrap().iter().map(parameters).collect();
    let expected = [
        ("list_peers", vec!["scope"], json!(["scope"])),
        ("send_message", vec!["message", "replyTo", "targetPeerId", "waitForReplySeconds"], json!(["targetPeerId", "message"])),
        ("set_summary", vec!["summary"], json!(["summary"])),
        ("check_messages", vec!["messageId", "offset", "waitSeconds"], Value::Null),
    ];
    let expected = expected.map(|(name, parameters, required)| {
        (name.to_owned(), parameters.into_iter().map(str::to_owned).collect::<Vec<_>>(), required)
    });
    assert_eq!(published, expected);
    assert_eq!(tools[0]["inputSchema"]["properties"]["scope"]["enum"], json!(["machine", "directory", "repo", "everywhere"]));

    let instructions = opening["instructions"].as_str().unwrap();
    for promise in ["from another agent, not from the user", "grants no permission", "changes no configuration", "send_message"] {
        assert!(instructions.contains(promise), "{promise:?} is not in the instructions: {instructions}");
    }
    let shown =
        |tool: &Value| json!({"name": tool["name"], "description": tool["description"], "inputSchema": tool["inputSchema"]});
    let shown: Value = tools.as_array().unwrap().iter().map(shown).collect(); // a model does not see the annotations
    let published = format!("{instructions}{shown}");
    let length = published.chars().count();
    println!("{published}");
    assert!(length <= MOST_CHARACTERS, "{length} characters: count the tokens, see MOST_CHARACTERS");
}

#[test]
fn answers_carry_the_ids_of_requests() {
    let place = folder();
    let (_broker, mut session) = alone(place.path());
    session.handshake();
    for id in [json!("text"), json!(""), json!(0), json!(-7), json!(9_007_199_254_740_993_i64)] {
        session.say(&json!({"jsonrpc": "2.0", "id": id, "method": "ping"}));
        assert_eq!(session.answer_to(&id)["result"], json!({}), "id {id}");
    }
}

// --- without a broker ---

#[test]
fn handshake_needs_no_broker() {
    let place = folder();
    let (_broker, mut session) = alone(place.path());
    assert_eq!(session.handshake()["serverInfo"]["name"], "claude-peers");
}

#[test]
fn handshake_does_not_wait_for_a_hung_broker() {
    let (broker, place) = (Broker::prepared(&[]), folder());
    fs::create_dir(broker.socket().parent().unwrap()).unwrap();
    let hanging = UnixListener::bind(broker.socket()).unwrap();
    hanging.set_nonblocking(true).unwrap();
    let mut session = Session::spawn(start(&broker, place.path()).command());
    session.handshake();

    let (mut connection, _) = eventually("the session connects", || hanging.accept().ok());
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = [0; 64];
    assert_ne!(connection.read(&mut request).unwrap(), 0, "the broker has been asked something");
    connection.set_nonblocking(true).unwrap();
    let mut rest = Vec::new();
    let still_waiting = connection.read_to_end(&mut rest).unwrap_err();
    assert_eq!(still_waiting.kind(), ErrorKind::WouldBlock, "the session still waits for that answer, the handshake did not");
}

// --- noise ---

/// Lines that a well-behaved client never writes.
fn noise() -> Vec<Vec<u8>> {
    let texts = [
        "not json",
        "{",
        "null",
        "5",
        "\"text\"",
        "{}",
        "[]",
        r#"[{"jsonrpc":"2.0","id":900,"method":"ping"},{"jsonrpc":"2.0","id":901,"method":"ping"}]"#,
        r#"{"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"1.0","id":902,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":903,"method":7}"#,
        r#"{"jsonrpc":"2.0","id":904,"method":"no/such/method"}"#,
        r#"{"jsonrpc":"2.0","id":905,"method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":906,"method":"tools/call","params":{"name":5}}"#,
        r#"{"jsonrpc":"2.0","id":907,"method":"initialize"}"#,
        r#"{"jsonrpc":"2.0","method":"no/such/notification","params":{"a":1}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":999}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#,
        r#"{"jsonrpc":"2.0","id":908,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":909,"error":{"code":-1,"message":"no"}}"#,
        "",
        "\r",
        "   \t ",
        "\u{0}",
        "\u{feff}{}",
    ];
    let mut lines: Vec<Vec<u8>> = texts.map(|text| text.as_bytes().to_vec()).into();
    lines.push(b"\xff\xfe\x80".to_vec());
    lines.push("[".repeat(100_000).into_bytes());
    lines.push("x".repeat(5 * 1024 * 1024).into_bytes());
    lines.push(
        format!(r#"{{"jsonrpc":"2.0","id":910,"method":"ping","params":{{"x":"{}"}}}}"#, "y".repeat(5 * 1024 * 1024))
            .into_bytes(),
    );
    lines
}

#[test]
fn server_survives_noise_around_the_handshake() {
    let place = folder();
    let (_broker, mut session) = alone(place.path());
    for opened in [false, true] {
        for line in noise() {
            session.say_raw([line.as_slice(), b"\n"].concat());
            let ping = session.ask("ping", json!({}));
            let shown = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
            assert_eq!(session.answer(ping)["result"], json!({}), "opened: {opened}, after {shown:?}");
        }
        if !opened {
            assert_eq!(session.handshake()["protocolVersion"], "2025-11-25");
        }
    }
}

#[test]
fn unusable_lines_are_answered_under_their_id() {
    let place = folder();
    let (_broker, mut session) = alone(place.path());
    let early = session.ask("tools/list", json!({}));
    assert_eq!(session.answer(early)["error"]["code"], -32600, "before initialize");
    session.handshake();
    let call = |id: &str, arguments: &str| {
        format!(r#"{{"method":"tools/call","params":{{"name":"send_message","arguments":{arguments}}},"id":{id}}}"#)
    };
    let lines: Vec<(Value, i32, &str, Vec<u8>)> = vec![
        (json!(5), -32700, "half of a character", call("5", r#"{"message":"Done \ud83d"}"#).into()),
        (json!("a"), -32700, "half of a character", call("\"a\"", r#"{"\udc00":1}"#).into()),
        (json!(5), -32700, "number out of range", call("5", r#"{"waitSeconds":1e999}"#).into()),
        (json!(5), -32700, "recursion limit", call("5", &format!("{{\"x\":{}{}}}", "[".repeat(1_000), "]".repeat(1_000))).into()),
        (json!(5), -32700, "not text in UTF-8", b"{\"id\":5,\"method\":\"tools/call\",\"params\":\"\xff\"}".to_vec()),
        (json!(5), -32602, "tools/call", call("5", "7").into()),
        (json!(5), -32602, "name", br#"{"id":5,"method":"tools/call"}"#.to_vec()),
        (json!(7), -32600, "as its id", br#"{"id":7}"#.to_vec()),
        (json!(1.5), -32600, "as its id", br#"{"id":1.5,"method":"ping"}"#.to_vec()),
        (json!(u64::MAX), -32600, "as its id", br#"{"id":18446744073709551615,"method":"ping"}"#.to_vec()),
        (json!(5), -32600, "no batches", br#"[{"id":5,"method":"ping"},{"method":"notifications/initialized"}]"#.to_vec()),
        (json!(null), -32600, "no batches", b"[]".to_vec()),
        (json!(null), -32600, "not a JSON object", b"null".to_vec()),
        (json!(null), -32700, "Parse error", br#"{"id":nul,"method":"ping"}"#.to_vec()),
        (json!(null), -32700, "Parse error", b"not json".to_vec()),
        (json!(null), -32600, "a line of more than", [b'x'; 17 * 1024 * 1024].to_vec()),
    ];
    session.say_raw(b"{\"id\":5,\"result\":\"\\ud83d\"}\n"); // an answer is never answered
    for (id, code, what, line) in lines {
        session.say_raw([line.as_slice(), b"\n"].concat());
        let answer = session.answer_to(&id);
        assert_eq!(answer["error"]["code"], code, "{what}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(what), "{what}: {answer}");
    }
    let long = "y".repeat(5 * 1024 * 1024);
    session
        .say_raw(format!(r#"{{"id":6,"method":"tools/call","params":{{"name":"none","arguments":{{"x":"{long}"}}}}}}{}"#, "\n"));
    assert_eq!(session.answer_to(&json!(6))["error"]["code"], -32602, "a long line is read whole");
}

#[test]
fn half_a_line_waits_for_its_rest() {
    let (broker, place) = (Broker::start(), folder());
    let mut session = Session::pulling(&broker, place.path(), "session-a");
    let to = session.id();
    let wait = session.ask("tools/call", json!({"name": "check_messages", "arguments": {"waitSeconds": 60}}));
    session.say_raw("{\"id\":\"half\",\"met");
    broker.http().post("/v1/send", &json!({"to": to, "text": "meanwhile"})).json();
    assert!(session.answer(wait)["result"].is_object(), "an answer is written meanwhile");
    session.say_raw("hod\":\"ping\"}\n");
    assert_eq!(session.answer_to(&json!("half"))["result"], json!({}));
}

// --- a client that does not read ---

/// Most memory of a server, in KiB, whatever its client does. The tests' build takes more than a release.
const MOST_MEMORY: u64 = 32 * 1024;
/// More requests than a pipe holds, whose answers would be 60 MiB and more.
const REQUESTS: usize = 20_000;

fn most_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn second_call_with_an_id_under_way_is_refused() {
    let (broker, place) = (Broker::start(), folder());
    let mut session = Session::pulling(&broker, place.path(), "session-a");
    let call = |arguments: Value| json!({"id": 1_000, "method": "tools/call", "params": {"name": "check_messages", "arguments": arguments}});
    session.say(&call(json!({"waitSeconds": 60})));
    session.say(&call(json!({})));
    // The id belongs to the first call, which goes on.
    let refused = session.answer_to(&json!(null));
    assert!(refused["error"]["message"].as_str().unwrap().contains("the id 1000 has not ended"), "{refused}");
}

#[test]
fn long_batch_takes_little_memory() {
    let (broker, place) = (Broker::start(), folder());
    let mut session = Session::pulling(&broker, place.path(), "session-a");
    let batch: Vec<_> = (0..200_000).map(|id| format!(r#"{{"id":{id},"method":"x"}}"#)).collect();
    session.say_raw(format!("[{}]\n", batch.join(",")));
    assert_eq!(session.answer_to(&json!(null))["error"]["code"], -32600);
    session.id();
    let memory = most_memory(session.pid());
    assert!(memory < MOST_MEMORY, "{memory} KiB");
}

#[test]
fn unread_answers_stop_the_reading() {
    let list = |id: usize| json!({"id": id, "method": "tools/list"}).to_string();
    let call = |id: usize| {
        json!({"id": id, "method": "tools/call", "params": {"name": "list_peers", "arguments": {"scope": "machine"}}}).to_string()
    };
    let broker = Broker::start();
    let lines: [fn(usize) -> String; 3] = [list, call, |_| "not json".to_owned()];
    lines.into_iter().for_each(|line| flood(&broker, line));
}

/// Writes requests to a server and reads no answer until it stops reading them.
fn flood(broker: &Broker, line: fn(usize) -> String) {
    let place = folder();
    let mut server = start(broker, place.path()).command();
    let mut server = server.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut stdin, stdout) = (server.stdin.take().unwrap(), server.stdout.take().unwrap());
    let written = Arc::new(AtomicUsize::new(0));
    let writing = std::thread::spawn({
        let written = written.clone();
        move || {
            let opening = json!({"id": "opening", "method": "initialize", "params": initialize("2025-11-25")});
            writeln!(stdin, "{opening}").unwrap();
            for id in 0..REQUESTS {
                writeln!(stdin, "{}", line(id)).unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
            stdin
        }
    });
    let mut before = 0;
    eventually("the server stops reading", || {
        std::thread::sleep(Duration::from_millis(200)); // no event tells that nothing happens
        let now = written.load(Ordering::Relaxed);
        (now > 0 && now == std::mem::replace(&mut before, now)).then_some(())
    });
    assert!(before < REQUESTS, "it has read all: {}", line(1));
    let answers = BufReader::new(stdout).lines().take(1 + REQUESTS).map_while(Result::ok).count();
    assert_eq!(answers, 1 + REQUESTS, "every request is answered: {}", line(1));
    let memory = most_memory(server.id());
    assert!(memory < MOST_MEMORY, "{memory} KiB: {}", line(1));
    drop(writing.join().unwrap());
    assert!(server.wait().unwrap().success());
}

// --- the end ---

#[test]
fn stdio_can_be_pipes_or_sockets() {
    let (broker, place) = (Broker::start(), folder());
    for spawn in [Session::spawn, Session::spawn_on_sockets] {
        let mut session = spawn(start(&broker, place.path()).command());
        session.handshake();
        assert!(session.peers().is_empty());
        assert!(session.close().success(), "the end of its input ends it");
    }
}

#[test]
fn signal_ends_the_server_and_unlists_the_session() {
    let (broker, place) = (Broker::start(), folder());
    for name in ["TERM", "INT", "HUP"] {
        let mut session = start(&broker, place.path()).go();
        session.id();
        signal(session.pid(), name);
        assert!(session.wait().success(), "SIG{name}");
        session.hung_up();
        assert_eq!(broker.peers(), [] as [Value; 0], "SIG{name}");
    }
}

#[test]
fn server_ends_with_its_parent() {
    let (broker, place) = (Broker::start(), folder());
    let mut session = Session::spawn(start(&broker, place.path()).under_claude(&[], &[]));
    session.handshake();
    session.id();
    signal(session.pid(), "KILL"); // only the claude process; this test still holds the other ends of both pipes
    session.hung_up();
}

/// A named pipe that reports two events: it was opened for writing, and all its writers have closed it.
fn watched_pipe(path: &Path) -> Receiver<()> {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    let (sender, events) = channel();
    let path = path.to_owned();
    std::thread::spawn(move || {
        let mut pipe = File::open(path).unwrap();
        let _ = sender.send(()); // the test may have ended
        pipe.read_to_end(&mut Vec::new()).unwrap();
        let _ = sender.send(());
    });
    events
}

/// The three ways in which a session ends.
const ENDS: [fn(Session); 3] = [
    |session| assert!(session.close().success()),
    |mut session| {
        signal(session.server_pid(), "TERM");
        session.hung_up();
    },
    |mut session| {
        signal(session.pid(), "KILL");
        session.hung_up();
    },
];

#[test]
fn hung_helper_ends_with_its_session() {
    const SERVER: &str = env!("CARGO_BIN_EXE_claude-peers-mcp");
    let generated = ("OPENAI_API_KEY".to_owned(), "sk-test".to_owned());
    // The server asks git for facts and `claude-peers`, which lies beside it, for a summary.
    for (helper, env) in [("git", vec![]), ("claude-peers", vec![generated])] {
        for end in ENDS {
            let (broker, place, programs) = (Broker::start(), folder(), folder_in(Path::new(SERVER).parent().unwrap()));
            let (pipe, work, server) =
                (place.path().join("pipe"), place.path().join("work"), programs.path().join("claude-peers-mcp"));
            let events = watched_pipe(&pipe);
            fs::hard_link(SERVER, &server).unwrap();
            // It starts a process of its own, which must not stay behind either.
            let hanging = programs.path().join(helper);
            fs::write(&hanging, format!("#!/bin/sh\n(exec 3>'{}'; exec sleep 600)\nexit\n", pipe.display())).unwrap();
            fs::set_permissions(&hanging, fs::Permissions::from_mode(0o755)).unwrap();

            git::repository(&work);
            let mut command = Start { env: env.clone(), ..start(&broker, &work) }.under_claude(&[], &[]);
            command.env("SERVER", server);
            command.env("PATH", format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap()));
            let mut session = Session::spawn(command);
            session.handshake();
            events.recv_timeout(PATIENCE).expect("the helper is asked");
            end(session);
            events.recv_timeout(PATIENCE).expect("the helper is gone");
        }
    }
}
