//! Which session a client's server serves: as the client's own variable or the `_meta` of a call says.

use super::{one, open, start, under};
use crate::support::{Broker, Session, eventually, folder, mcp::Start};
use serde_json::{Value, json};
use std::{fs, os::unix::process::CommandExt, path::Path};

/// A client, its program, and the variable with its session's id.
const WITH_VARIABLES: [[&str; 3]; 3] = [
    ["qwen-cli-mcp-client-claude-peers", "qwen", "QWEN_CODE_SESSION_ID"],
    ["copilot-cli", "/opt/copilot", "COPILOT_AGENT_SESSION_ID"],
    ["goose-cli", "goose", "AGENT_SESSION_ID"],
];

fn with_variable<'a>(broker: &'a Broker, directory: &'a Path, variable: &str, id: &str) -> Start<'a> {
    Start { env: vec![(variable.to_owned(), id.to_owned())], ..start(broker, directory) }
}

/// The id of the only peer, once there is one.
fn listed(broker: &Broker) -> String {
    eventually("one peer is listed", || match broker.peers().as_slice() {
        [peer] => Some(peer["id"].as_str().unwrap().to_owned()),
        _ => None,
    })
}

fn listed_no_more(broker: &Broker) {
    eventually("no peer is listed", || broker.peers().is_empty().then_some(()));
}

/// Its own id, and all mail that its results have shown meanwhile.
fn id_of(session: &mut Session) -> String {
    let text = session.call("list_peers", json!({"scope": "machine"}))["content"][0]["text"].as_str().unwrap().to_owned();
    text.split_once('(').unwrap().1.split_once(')').unwrap().0.to_owned()
}

// --- variables ---

#[test]
fn resumed_session_is_the_same_peer() {
    for [client, program, variable] in WITH_VARIABLES {
        let (broker, place) = (Broker::start(), folder());
        let resume = |id: &str| {
            let mut session = under(program, &with_variable(&broker, place.path(), variable, id));
            session.handshake_as(client);
            session
        };
        let mut session = resume("one");
        let id = id_of(&mut session);
        assert!(session.close().success());
        listed_no_more(&broker);
        broker.cli_json(&["send", &id, "while it was away"]);

        let mut other = resume("two");
        assert_ne!(id_of(&mut other), id, "{client}: another session");
        drop(other);
        let mut session = resume("one");
        let mail = session.call("check_messages", json!({})).to_string();
        assert!(mail.contains("while it was away"), "{client}: {mail}");
        assert_eq!(id_of(&mut session), id, "{client}");
    }
}

#[test]
fn inherited_variable_names_no_session() {
    for [client, program, variable] in WITH_VARIABLES {
        for above in ["claude", "some-program", "sh"] {
            let (broker, place) = (Broker::start(), folder());
            let begin = || {
                let mut session = under(above, &with_variable(&broker, place.path(), variable, "one"));
                session.handshake_as(client);
                session
            };
            let mut session = begin();
            let id = id_of(&mut session);
            assert!(session.close().success());
            listed_no_more(&broker);
            assert_ne!(id_of(&mut begin()), id, "{client} is {program}, not {above}");
        }
    }
}

#[test]
fn equal_ids_of_two_clients_are_two_sessions() {
    let (broker, place) = (Broker::start(), folder());
    let mut ids = WITH_VARIABLES.map(|[client, program, variable]| {
        let mut session = under(program, &with_variable(&broker, place.path(), variable, "20261125_1"));
        session.handshake_as(client);
        let id = id_of(&mut session);
        assert!(session.close().success());
        listed_no_more(&broker);
        id
    });
    ids.sort();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
}

// --- calls that name their session ---

const CODEX: &str = "codex-mcp-client";

/// A call of Codex for this thread; `source` is `user`, or `subagent`.
fn call_of(session: &mut Session, (thread, source): (&str, &str), tool: &str, arguments: &Value) -> Value {
    let turn = json!({"session_id": thread, "thread_id": thread, "thread_source": source});
    let meta = json!({"threadId": thread, "x-codex-turn-metadata": turn});
    let id = session.ask("tools/call", json!({"name": tool, "arguments": arguments, "_meta": meta}));
    session.answer(id)["result"].clone()
}

fn list_of(session: &mut Session, thread: (&str, &str)) -> Value {
    call_of(session, thread, "list_peers", &json!({"scope": "machine"}))["structuredContent"].clone()
}

#[test]
fn first_call_keeps_the_new_peer() {
    let (broker, _place, mut session) = one(CODEX);
    let id = listed(&broker);
    assert_eq!(list_of(&mut session, ("thread-1", "user"))["self"]["id"], *id);
    assert_eq!(listed(&broker), id);
}

#[test]
fn first_call_resumes_its_session() {
    let (broker, place, mut session) = one(CODEX);
    let thread = ("thread-1", "user");
    let id = list_of(&mut session, thread)["self"]["id"].as_str().unwrap().to_owned();
    assert!(session.close().success());
    listed_no_more(&broker);
    let mut sent = vec![broker.cli_json(&["send", &id, "while it was away"]).1["messageId"].clone()];

    let mut session = open(&broker, place.path(), CODEX);
    let before = listed(&broker);
    assert_ne!(before, id, "nothing names the session yet");
    sent.push(broker.cli_json(&["send", &before, "before the first call"]).1["messageId"].clone());
    let list = list_of(&mut session, thread);
    let shown: Vec<&Value> = list["incomingMessages"].as_array().unwrap().iter().map(|message| &message["id"]).collect();
    assert_eq!((&list["self"]["id"], shown), (&json!(id), sent.iter().collect()), "{list}");
    assert_eq!(listed(&broker), id, "the other is gone");
    sent.iter().for_each(|id| drop(broker.message_once("delivered", id)));

    broker.cli_json(&["send", &id, "from then on"]);
    let result = eventually("mail comes", || {
        let result = call_of(&mut session, thread, "check_messages", &json!({}))["structuredContent"].clone();
        (result["messages"] != json!([])).then_some(result)
    });
    assert_eq!(result["messages"][0]["text"], "from then on");
}

#[test]
fn subagents_and_strangers_take_no_mail() {
    let (broker, _place, mut session) = one(CODEX);
    let id = list_of(&mut session, ("thread-1", "user"))["self"]["id"].as_str().unwrap().to_owned();
    broker.cli_json(&["send", &id, "for the session"]);
    for thread in [("thread-2", "subagent"), ("thread-1", "subagent"), ("thread-3", "user")] {
        let list = list_of(&mut session, thread);
        assert_eq!((&list["self"]["id"], list.get("incomingMessages")), (&json!(id), None), "{thread:?}: {list}");
        for (tool, arguments) in [
            ("check_messages", json!({})),
            ("check_messages", json!({"waitSeconds": 60})),
            ("send_message", json!({"to": "nobody", "text": "?", "waitForReplySeconds": 60})),
        ] {
            let result = call_of(&mut session, thread, tool, &arguments);
            assert_eq!(result["isError"], true, "{thread:?}: {result}");
            assert!(result.to_string().contains("not to its subagents"), "{thread:?}: {result}");
        }
    }
    let mail = call_of(&mut session, ("thread-1", "user"), "check_messages", &json!({}))["structuredContent"].clone();
    assert_eq!(mail["messages"][0]["text"], "for the session");
}

#[test]
fn subagents_call_names_no_session() {
    let (broker, place, mut session) = one(CODEX);
    list_of(&mut session, ("thread-2", "subagent"));
    let id = list_of(&mut session, ("thread-1", "user"))["self"]["id"].clone();
    assert!(session.close().success());
    listed_no_more(&broker);
    let mut session = open(&broker, place.path(), CODEX);
    assert_eq!(list_of(&mut session, ("thread-1", "user"))["self"]["id"], id);
}

// --- the broker's socket ---

#[test]
fn server_finds_the_broker_without_variables() {
    let (broker, place) = (Broker::start(), folder());
    for kept in ["CLAUDE_PEERS_SOCKET", "XDG_RUNTIME_DIR"] {
        let run = place.path().join("run");
        if kept == "XDG_RUNTIME_DIR" {
            std::fs::create_dir(&run).unwrap();
            std::os::unix::fs::symlink(broker.socket().parent().unwrap(), run.join("claude-peers")).unwrap();
        }
        let start = start(&broker, place.path());
        let mut command = start.claude("env -u CLAUDE_PEERS_SOCKET -u XDG_RUNTIME_DIR \"$SERVER\"", &[]);
        command
            .arg0("codex")
            .env_remove("CLAUDE_PEERS_SOCKET")
            .env(kept, if kept == "XDG_RUNTIME_DIR" { run } else { broker.socket() });
        let mut session = Session::spawn(command);
        session.handshake_as(CODEX);
        assert_eq!(id_of(&mut session), listed(&broker), "{kept}");
        assert!(session.close().success());
        listed_no_more(&broker);
    }
}

// --- modes ---

#[test]
fn flags_that_bypass_prompts_hold_messages() {
    let (broker, place) = (Broker::start(), folder());
    let settings = broker.folder().join(".claude/settings.json"); // which say nothing of other agents
    fs::create_dir(settings.parent().unwrap()).unwrap();
    fs::write(settings, json!({"permissions": {"defaultMode": "bypassPermissions"}}).to_string()).unwrap();
    let mut asker = open(&broker, place.path(), "some-new-client");
    for (client, program, flags, state) in [
        ("qwen-cli-mcp-client-claude-peers", "qwen", &["--yolo"][..], "held"),
        ("gemini-cli-mcp-client", "gemini", &["--approval-mode", "yolo"], "held"),
        ("gemini-cli-mcp-client", "gemini", &["--approval-mode=auto_edit"], "queued"),
        ("codex-mcp-client", "codex", &["exec", "--dangerously-bypass-approvals-and-sandbox"], "held"),
        ("copilot-cli", "copilot", &["--allow-tool", "claude-peers"], "queued"),
        ("some-new-client", "qwen", &["--yolo"], "queued"),
    ] {
        let directory = folder();
        let mut command = start(&broker, directory.path()).claude("\"$SERVER\"", flags);
        command.arg0(program);
        let mut session = Session::spawn(command);
        session.handshake_as(client);
        let id = id_of(&mut session);
        assert_eq!(asker.send(&id, "Which port?")["state"], state, "{client} {flags:?}");
    }
}
