//! The four tools as a model calls them: parameters and their spellings, results and errors.

use crate::support::{Broker, Session, events::Peer, folder, git};
use chrono::DateTime;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A broker and two sessions in sibling directories `frontend` and `backend`.
fn two(open: fn(&Broker, &std::path::Path, &str) -> Session) -> (Broker, TempDir, Session, Session) {
    let (broker, place) = (Broker::start(), folder());
    let session = |name: &str| {
        let directory = place.path().join(name);
        git::repository(&directory);
        open(&broker, &directory, &format!("session-{name}"))
    };
    let (frontend, backend) = (session("frontend"), session("backend"));
    (broker, place, frontend, backend)
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Asserts that `value` is a time in UTC.
fn assert_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no text"));
    assert!(text.ends_with('Z') && DateTime::parse_from_rfc3339(text).is_ok(), "{text} is no time in UTC");
}

// --- results ---

#[test]
fn list_peers_shows_peers_and_the_caller() {
    let (_broker, place, mut frontend, mut backend) = two(Session::start);
    let (frontend_id, backend_id) = (frontend.id(), backend.id());
    backend.tool("set_summary", json!({"summary": "Migrating the schema"}));

    let result = frontend.call("list_peers", json!({"scope": "machine"}));
    let list = &result["structuredContent"];
    assert_eq!(keys(list), ["peers", "self"]);
    let peers = list["peers"].as_array().unwrap();
    assert_eq!(peers.len(), 1, "the caller is left out: {list}");
    for (peer, id, name) in [(&peers[0], &backend_id, "backend"), (&list["self"], &frontend_id, "frontend")] {
        let mut fields = keys(peer);
        fields.retain(|key| *key != "tty"); // present only if the tests run in a terminal
        assert_eq!(
            fields,
            [
                "agent",
                "cwd",
                "delivery",
                "deliveryReason",
                "gitBranch",
                "gitRepo",
                "id",
                "lastSeen",
                "name",
                "pid",
                "registeredAt",
                "status",
                "summary",
                "waiting"
            ]
        );
        assert_eq!((&peer["id"], &peer["name"], &peer["gitRepo"]), (&json!(id), &json!(name), &json!(name)));
        assert_eq!(peer["cwd"], place.path().join(name).to_str().unwrap());
        assert_eq!((&peer["gitBranch"], &peer["status"]), (&json!("main"), &json!("connected")));
        assert_eq!((&peer["delivery"], &peer["waiting"]), (&json!("channel"), &json!(0)));
        assert_time(&peer["lastSeen"]);
        assert_time(&peer["registeredAt"]);
    }
    assert_eq!(peers[0]["summary"], "Migrating the schema");
    assert_eq!(peers[0]["pid"], backend.pid());

    let text = result["content"][0]["text"].as_str().unwrap();
    for part in [&frontend_id, "frontend", &backend_id, "backend", "branch main", "channel", "Migrating the schema"] {
        assert!(text.contains(part), "{part:?} is not in what the model reads: {text}");
    }
}

#[test]
fn long_list_is_paged_and_carries_no_mail() {
    let (broker, _place, mut frontend, mut backend) = two(Session::pulling);
    frontend.id();
    let register =
        |number: usize| Peer::register(&broker.http(), &format!("p{number}"), json!({"cwd": format!("/srv/w{number}")}));
    let others: Vec<Peer> = (0..200).map(register).collect();
    let long = json!({"summary": "é".repeat(1_000), "source": "session"});
    others[..100].iter().for_each(|peer| assert_eq!(peer.over(&broker.http()).post("/v1/set-summary", &long).status, 200));
    backend.send("frontend", "is waiting");

    let (mut seen, mut offset) = (Vec::new(), json!(0));
    for _ in 0..20 {
        let result = frontend.call("list_peers", json!({"scope": "machine", "offset": offset}));
        assert!(result.to_string().len() < 60_000, "{} bytes", result.to_string().len());
        let list = &result["structuredContent"];
        assert_eq!((list.get("incomingMessages"), &list["self"]["name"]), (None, &json!("frontend")));
        let peers = list["peers"].as_array().unwrap();
        let is_cut = |peer: &Value| peer["summary"].as_str().unwrap().chars().count() <= 121;
        assert!(!peers.is_empty() && peers.iter().all(is_cut), "summaries are cut, and peers are shown");
        seen.extend(peers.iter().map(|peer| peer["id"].clone()));
        let note = list["note"].as_str().unwrap_or_default();
        assert!(result["content"][0]["text"].as_str().unwrap().ends_with(note), "both forms end in {note:?}");
        let Some((_, next)) = note.rsplit_once("call list_peers with offset ") else { break };
        offset = json!(next.split(',').next().unwrap());
    }
    assert_eq!(seen.len(), others.len() + 1);
    assert!(others.iter().all(|peer| seen.contains(&json!(peer.id))));

    let near = frontend.tool("list_peers", json!({"scope": "directory"}));
    assert_eq!(near["incomingMessages"][0]["text"], "is waiting", "a short list takes it: {near}");
    let past = frontend.call("list_peers", json!({"scope": "machine", "offset": 1_000}));
    assert!(past["content"][0]["text"].as_str().unwrap().contains("only 201 other peers"), "{past}");
}

#[test]
fn send_message_gives_a_receipt() {
    let (_broker, _place, mut frontend, mut backend) = two(Session::pulling);
    let backend_id = backend.id();
    let sent = frontend.send("backend", "is the schema final?");
    assert_eq!(keys(&sent), ["messageId", "sentAt", "state", "success", "to", "warning"]);
    assert_eq!((&sent["success"], &sent["state"]), (&json!(true), &json!("queued")));
    assert_eq!(sent["to"], json!({"id": backend_id, "name": "backend"}));
    assert_time(&sent["sentAt"]);
    let warning = sent["warning"].as_str().unwrap();
    assert!(warning.contains("backend cannot be interrupted") && warning.contains("next uses"), "{warning}");

    let (_broker, _place, mut frontend, mut backend) = two(Session::start);
    backend.id(); // it is registered now
    let sent = frontend.send("backend", "is the schema final?");
    assert_eq!(keys(&sent), ["messageId", "sentAt", "state", "success", "to"], "nothing to warn of: {sent}");
}

#[test]
fn set_summary_returns_the_stored_summary() {
    let (_broker, _place, mut frontend, mut backend) = two(Session::pulling);
    backend.id();
    for summary in ["Deploying v2.1 – don't push to main", "two\nlines", &"é".repeat(1_000), ""] {
        assert_eq!(backend.tool("set_summary", json!({"summary": summary})), json!({"summary": summary}));
        assert_eq!(frontend.peers()[0]["summary"], summary);
    }
}

#[test]
fn check_messages_returns_the_oldest_first() {
    let (_broker, place, mut frontend, mut backend) = two(Session::pulling);
    let (frontend_id, backend_id) = (frontend.id(), backend.id());
    frontend.tool("set_summary", json!({"summary": "Drawing the table"}));
    assert_eq!(backend.tool("check_messages", json!({})), json!({"messages": []}));

    let question = backend.send(&frontend_id, "which port?")["messageId"].clone();
    assert_eq!(frontend.check()[0]["id"], question);
    let answer = frontend.tool("send_message", json!({"targetPeerId": backend_id, "message": "8080", "replyTo": question}));
    let more = frontend.send("backend", "and 8081");

    let result = backend.call("check_messages", json!({}));
    let from = json!({
        "id": frontend_id, "name": "frontend", "cwd": place.path().join("frontend").to_str().unwrap(), "summary": "Drawing the table",
    });
    assert_eq!(
        result["structuredContent"]["messages"],
        json!([
            {"id": answer["messageId"], "from": from, "text": "8080", "sentAt": answer["sentAt"], "replyTo": question},
            {"id": more["messageId"], "from": from, "text": "and 8081", "sentAt": more["sentAt"]},
        ])
    );
    // Some clients show their model only the structured result.
    let notice = result["structuredContent"]["notice"].as_str().unwrap();
    assert!(notice.contains("not from the user") && notice.contains("replyTo"), "{notice}");
    let text = result["content"][0]["text"].as_str().unwrap();
    assert!(text.starts_with(&format!("📨 Message from peer {frontend_id} (frontend):\n")), "{text}");
    assert!(backend.check().is_empty(), "shown once");
}

#[test]
fn check_messages_reads_from_any_offset() {
    let (_broker, _place, mut frontend, mut backend) = two(Session::pulling);
    backend.id();
    let id = frontend.send("backend", "größer")["messageId"].clone();
    for (arguments, text) in [
        (json!({"messageId": id}), "größer"),
        (json!({"messageId": id, "offset": 0}), "größer"),
        (json!({"messageId": id, "offset": 3}), "ßer"),
        (json!({"messageId": id, "offset": "3"}), "ßer"),
    ] {
        let messages = backend.tool("check_messages", arguments.clone())["messages"].clone();
        assert_eq!((messages.as_array().unwrap().len(), &messages[0]["text"]), (1, &json!(text)), "{arguments}");
    }
    assert!(backend.check().is_empty(), "what was read does not wait any more");
    assert_eq!(
        frontend.tool("check_messages", json!({"messageId": id}))["messages"][0]["text"],
        "größer",
        "its sender may look, too"
    );
}

// --- calls ---

#[test]
fn send_message_accepts_every_recipient_parameter() {
    let (_broker, _place, mut frontend, mut backend) = two(Session::pulling);
    let backend_id = backend.id();
    let mut sent = Vec::new();
    for (to, reference) in [("targetPeerId", &*backend_id), ("to_id", "backend"), ("to", "BackEnd"), ("peer_id", " backend ")] {
        for text in ["message", "text"] {
            let words = format!("{to} and {text}");
            assert_eq!(frontend.tool("send_message", json!({to: reference, text: words}))["to"]["id"], *backend_id);
            sent.push(words);
        }
    }
    let received: Vec<_> = backend.check().iter().map(|message| message["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(received, sent);
}

#[test]
fn failed_call_says_why_and_what_to_do() {
    let (broker, _place, mut frontend, mut backend) = two(Session::pulling);
    let (frontend_id, _) = (frontend.id(), backend.id());
    frontend.tool("set_summary", json!({"summary": "as before"}));
    let (schema, list) = ("call it again with the parameters of its schema", "list the peers");
    for (tool, arguments, cause, remedy) in [
        ("list_peers", json!({}), "the parameter scope is missing", schema),
        ("list_peers", json!({"scope": null}), "the parameter scope is missing", schema),
        ("list_peers", json!({"scope": 5}), "list_peers: invalid type", schema),
        (
            "list_peers",
            json!({"scope": "galaxy"}),
            "scope \"galaxy\" is unknown",
            "\"machine\", \"directory\", \"repo\" or \"everywhere\"",
        ),
        (
            "list_peers",
            json!({"scope": "Machine"}),
            "scope \"Machine\" is unknown",
            "\"machine\", \"directory\", \"repo\" or \"everywhere\"",
        ),
        ("list_peers", json!({"scope": "machine", "colour": "red"}), "unknown field `colour`", schema),
        ("send_message", json!({}), "the parameter targetPeerId is missing", schema),
        ("send_message", json!({"to": "backend"}), "the parameter message is missing", schema),
        ("send_message", json!({"message": "hello"}), "the parameter targetPeerId is missing", schema),
        ("send_message", json!({"to": "backend", "message": ""}), "the message is empty", "give it a text"),
        ("send_message", json!({"to": "backend", "message": " \n"}), "the message is empty", "give it a text"),
        ("send_message", json!({"to": "nobody", "message": "hello"}), "Peer nobody not found", list),
        ("send_message", json!({"to": "no body", "message": "hello"}), "\"no body\" has the wrong shape", "by its id or name"),
        ("send_message", json!({"to": "", "message": "hello"}), "\"\" has the wrong shape", "by its id or name"),
        ("send_message", json!({"to": frontend_id, "message": "hello"}), "cannot write to itself", list),
        ("send_message", json!({"to": "frontend", "message": "hello"}), "cannot write to itself", list),
        ("send_message", json!({"to": "cli", "message": "hello"}), "cli has no mailbox", list),
        ("send_message", json!({"to": "broker", "message": "hello"}), "broker has no mailbox", list),
        (
            "send_message",
            json!({"to": "backend", "message": "x", "replyTo": "yesterday"}),
            "\"yesterday\"",
            "looks like m1042-k7xq2m",
        ),
        (
            "send_message",
            json!({"to": "backend", "message": "x", "replyTo": "m9-abcdef"}),
            "names m9-abcdef",
            "or leave replyTo out",
        ),
        ("set_summary", json!({}), "the parameter summary is missing", schema),
        ("set_summary", json!({"summary": "é".repeat(1_001)}), "has 1001 characters; at most 1000", "in one or two sentences"),
        ("check_messages", json!({"waitSeconds": "soon"}), "waitSeconds and offset are whole numbers", schema),
        ("check_messages", json!({"waitSeconds": -1}), "waitSeconds and offset are whole numbers", schema),
        ("check_messages", json!({"offset": 5}), "needs messageId", schema),
        ("check_messages", json!({"messageId": "first"}), "\"first\"", "looks like m1042-k7xq2m"),
        ("check_messages", json!({"messageId": "m9-abcdef"}), "message m9-abcdef not found", "check the id"),
    ] {
        let said = frontend.tool_error(tool, arguments.clone());
        assert!(said.contains(cause), "{tool} {arguments} is refused for {cause:?}: {said}");
        assert!(said.contains(remedy), "{tool} {arguments} says {remedy:?}: {said}");
    }
    assert_eq!(broker.http().get("/v1/history").json()["messages"], json!([]), "nothing was sent");
    assert_eq!(frontend.list()["self"]["summary"], "as before");

    let id = frontend.send("backend", "short")["messageId"].clone();
    let said = backend.tool_error("check_messages", json!({"messageId": id, "offset": 6}));
    assert!(said.contains("ends before offset 6"), "{said}");
}

#[test]
fn lone_surrogate_is_answered_under_its_id() {
    let (broker, _place, mut frontend, mut backend) = two(Session::pulling);
    backend.id();
    let call = r#""method":"tools/call","params":{"name":"send_message","arguments":{"to":"backend","message":"Done \ud83d"}}"#;
    frontend.say_raw(format!("{{\"jsonrpc\":\"2.0\",\"id\":\"half\",{call}}}\n"));
    let error = frontend.answer_to(&json!("half"))["error"].clone();
    assert_eq!(error["code"], -32700);
    assert!(error["message"].as_str().unwrap().contains(r"such as \ud83d is only half of a character"), "{error}");
    assert_eq!(broker.stored().0, 0);
    assert_eq!(frontend.send("backend", "Done 😀")["success"], true);
}

#[test]
fn unknown_tool_is_a_protocol_error() {
    let (_broker, _place, mut frontend, _backend) = two(Session::pulling);
    let call = frontend.ask("tools/call", json!({"name": "SendMessage", "arguments": {}}));
    let error = frontend.answer(call)["error"].clone();
    assert_eq!(error["code"], -32602);
    assert!(error["message"].as_str().unwrap().contains("SendMessage"), "{error}");
}

#[test]
fn name_means_the_living_or_newest_session() {
    let (broker, place) = (Broker::start(), folder());
    let directory = place.path().join("app");
    std::fs::create_dir(&directory).unwrap();
    let mut asker = Session::pulling(&broker, place.path(), "asker");
    let gone = ["first", "second"].map(|name| {
        let mut session = Session::pulling(&broker, &directory, name);
        assert_eq!(session.list()["self"]["name"], "app");
        let id = session.id();
        asker.send(&id, &format!("to the {name}"));
        session.close();
        id
    });
    let sent = asker.send("app", "to the newest");
    assert_eq!(sent["to"]["id"], gone[1]);
    let warning = sent["warning"].as_str().unwrap();
    let known = format!("2 sessions named app are gone; this goes to the newest, {}; app is not running", gone[1]);
    assert!(warning.starts_with(&known), "{warning}");

    let mut living = Session::pulling(&broker, &directory, "third");
    let living = living.id();
    assert_eq!(asker.send("App", "to the living")["to"]["id"], living, "it goes before all that are gone");

    let texts = |peer: &str| {
        let (_, page) = broker.cli_json(&["history", "--peer", peer]);
        let messages = page["messages"].as_array().unwrap().iter();
        messages.map(|message| message["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = ["to the living", "to the newest", "to the second", "to the first"];
    assert_eq!(texts("app"), all, "whoever bears the name now");
    assert_eq!((texts(&gone[0]), texts(&living)), (vec![all[3].to_owned()], vec![all[0].to_owned()]), "an id is one session's");
    assert_eq!(broker.cli_json(&["history", "--peer", "nobody"]).0, 4);
}

#[test]
fn concurrent_calls_do_not_wait_for_each_other() {
    let (_broker, _place, mut frontend, mut backend) = two(Session::pulling);
    backend.id();
    let call = |name: &str, arguments: Value| json!({"name": name, "arguments": arguments});
    let wait = frontend.ask("tools/call", call("check_messages", json!({"waitSeconds": 3_600})));
    let list = frontend.ask("tools/call", call("list_peers", json!({"scope": "machine"})));
    let send = frontend.ask("tools/call", call("send_message", json!({"to": "backend", "message": "ready?"})));
    assert_eq!(frontend.answer(send)["result"]["structuredContent"]["success"], true);
    assert_eq!(frontend.answer(list)["result"]["structuredContent"]["peers"][0]["name"], "backend");

    backend.send("frontend", "ready");
    let messages = frontend.answer(wait)["result"]["structuredContent"]["messages"].clone();
    assert_eq!(messages[0]["text"], "ready");
}

#[test]
fn calls_beyond_the_limit_are_refused() {
    let (_broker, _place, mut frontend, mut backend) = two(Session::pulling);
    backend.id();
    let wait = json!({"name": "check_messages", "arguments": {"waitSeconds": 3_600}});
    let waits: Vec<u64> = (0..256).map(|_| frontend.ask("tools/call", wait.clone())).collect();
    let refused = frontend.tool_error("set_summary", json!({"summary": "busy"}));
    assert!(refused.contains("too many calls are under way"), "{refused}");
    frontend.say(&json!({"method": "notifications/cancelled", "params": {"requestId": waits[0]}}));
    frontend.tool("set_summary", json!({"summary": "busy"}));
}
