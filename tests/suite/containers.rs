//! Sessions in containers: they come through a socket of their own, talk with all others, and can do nothing else.

use crate::support::{
    Broker, Session,
    agent::Agent,
    container::{are_possible, inside, inside_as_another_user, open},
    events::{Events, Peer},
    eventually, folder,
    http::Http,
    mcp::Start,
    other::Other,
};
use serde_json::{Value, json};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

/// A real session inside of the container whose socket is in `folder`.
fn session(broker: &Broker, folder: &Path, directory: &Path, id: &str) -> Session {
    let start = Start { broker, directory, session_id: id, delivery: "channel", env: Vec::new() };
    let mut session = Session::spawn(inside(folder, &start.command()));
    session.handshake();
    session
}

fn through(folder: &Path) -> Http {
    Http::unix(&folder.join("broker.sock"))
}

/// The list's entry of the peer with this id.
fn listed(broker: &Broker, id: &str) -> Value {
    broker.peers().into_iter().find(|peer| peer["id"] == id).unwrap_or_else(|| panic!("{id} is not listed"))
}

#[test]
fn session_in_a_container_talks_with_those_outside() {
    if !are_possible() {
        return;
    }
    let (broker, place) = (Broker::start(), folder());
    let folder = open(&broker, "shop");
    let mut outside = Session::start(&broker, place.path(), "s-1");
    let mut inside = session(&broker, &folder, place.path(), "s-1");
    let (out, id) = (outside.id(), inside.id());
    assert_ne!(out, id, "the same session id is another session inside");

    let peer = outside.peers().into_iter().find(|peer| peer["id"] == id.as_str()).unwrap();
    assert_eq!((&peer["container"], &peer["status"]), (&json!("shop"), &json!("connected")), "{peer}");
    assert!(peer.get("pid").is_none() && peer.get("tty").is_none(), "{peer}");
    let text = outside.call("list_peers", json!({"scope": "machine"}))["content"].to_string();
    assert!(text.contains(", container shop"), "{text}");
    for scope in ["directory", "repo"] {
        let peers = outside.tool("list_peers", json!({"scope": scope}))["peers"].clone();
        assert_eq!(peers, json!([]), "{scope}: the same path inside is another place");
    }

    let asked = outside.send(&id, "Which port?");
    let pushed = inside.pushed();
    assert_eq!(pushed["meta"]["from_id"], out.as_str(), "{pushed}");
    let answer = json!({"targetPeerId": out, "message": "8080", "replyTo": asked["messageId"]});
    inside.tool("send_message", answer);
    let pushed = outside.pushed();
    assert_eq!((&pushed["meta"]["from_id"], &pushed["meta"]["from_container"]), (&json!(id), &json!("shop")), "{pushed}");
    broker.message_once("delivered", &asked["messageId"]);

    let table = broker.cli(&["peers"]).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains(&format!("shop:{}", place.path().display())), "{table}");
    let (_, list) = broker.cli_json(&["container", "--list"]);
    let expected = json!({"containers": [{"name": "shop", "folder": folder.to_str().unwrap(), "peers": 1}]});
    assert_eq!(list, expected);
}

#[test]
fn inbox_and_hook_work_in_a_container() {
    if !are_possible() {
        return;
    }
    let (broker, place) = (Broker::start(), folder());
    let folder = open(&broker, "shop");
    let bob = Agent::wrapped(&broker, place.path(), "s-1", |command| inside(&folder, &command));
    let mut ada = Session::pulling(&broker, place.path(), "s-2");
    let peer = broker.peers().into_iter().find(|peer| peer["container"] == "shop").unwrap();
    assert_eq!(peer["delivery"], "inbox", "{peer}");
    let sent = ada.send(peer["id"].as_str().unwrap(), "Is the parser done?");
    let frame = bob.frame();
    assert!(!frame.json.to_string().contains("uds:"), "the broker's folder has no room for answers: {}", frame.json);
    bob.let_in(&frame);
    let message = broker.message_once("delivered", &sent["messageId"]);
    assert_eq!(message["route"], "inbox", "{message}");
    assert!(listed(&broker, peer["id"].as_str().unwrap())["deliveryReason"].to_string().contains("its hook confirms"));
    assert!(!bob.session.log().contains("answers"), "{}", bob.session.log());
}

#[test]
fn session_ids_of_containers_are_apart() {
    let broker = Broker::start();
    let (one, two) = (through(&open(&broker, "one")), through(&open(&broker, "two")));
    let session = json!({"sessionId": "s-1"});
    let peers = [broker.http(), one.clone(), two].map(|http| Peer::register(&http, "first", session.clone()));
    let ids: std::collections::BTreeSet<&str> = peers.iter().map(|peer| peer.id.as_str()).collect();
    assert_eq!(ids.len(), 3);

    // A resumed session is the same peer, and gets its mail, in its own container alone.
    let message = json!({"to": peers[1].id, "text": "Which port?"});
    assert_eq!(broker.http().post("/v1/send", &message).status, 200);
    let elsewhere = Peer::register(&broker.http(), "second", session.clone());
    assert_ne!(elsewhere.id, peers[1].id);
    let resumed = Peer::register(&one, "second", session);
    assert_eq!(resumed.id, peers[1].id);
    let taken = resumed.over(&one).post("/v1/take", &json!({"lease": "l", "route": "check_messages"})).json();
    assert_eq!(taken["messages"][0]["text"], "Which port?");
}

#[test]
fn socket_of_a_container_is_for_sessions_alone() {
    let broker = Broker::start();
    let (one, two) = (through(&open(&broker, "one")), through(&open(&broker, "two")));
    let outside = Peer::register(&broker.http(), "victim", json!({"cwd": "/victim"}));
    let inside = Peer::register(&one, "evil", json!({}));
    let before = broker.stored();
    let message = broker.http().post("/v1/send", &json!({"to": outside.id, "text": "secret"})).json()["messageId"].clone();
    let message = message.as_str().unwrap();
    let of_message = |verb: &str| format!("/v1/messages/{message}/{verb}");
    let mail = format!("/v1/peers/{}/mail", outside.id);
    let forbidden = [
        ("GET", "/v1/status", ""),
        ("GET", "/v1/history", ""),
        ("GET", "/v1/search?words=secret", ""),
        ("GET", "/v1/watch", ""),
        ("GET", "/v1/containers", ""),
        ("GET", "/v1/openapi.json", ""),
        ("GET", &mail, ""),
        ("GET", "/health", ""),
        ("GET", "/", ""),
        ("POST", "/v1/stop", "{}"),
        ("POST", "/v1/containers/evil/open", "{}"),
        ("POST", "/v1/containers/one/close", "{}"),
        ("POST", &of_message("release"), "{}"),
        ("POST", &of_message("read"), "{}"),
        ("POST", "/register", r#"{"pid":1,"cwd":"/tmp","git_root":null,"tty":null,"summary":"evil"}"#),
        ("POST", "/list-peers", r#"{"scope":"machine","cwd":"/","git_root":null}"#),
        ("POST", "/send-message", r#"{"from_id":"cli","to_id":"victim","text":"evil"}"#),
        ("POST", "/v1/nowhere", "{}"),
    ];
    for (method, path, body) in forbidden {
        for http in [&one, &inside.over(&one)] {
            let answer = http.request(method, path, &[("Content-Type", "application/json")], body);
            assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{method} {path}: {}", answer.body);
        }
    }
    // Without a secret of that very place, nobody is a session, and least of all the user.
    let unknown = [
        ("GET", "/v1/peers?scope=machine", ""),
        ("GET", "/v1/whoami", ""),
        ("GET", "/v1/events", ""),
        ("GET", &format!("/v1/messages/{message}"), ""),
        ("GET", &of_message("reply"), ""),
        ("POST", "/v1/send", r#"{"to":"victim","text":"evil"}"#),
        ("POST", "/v1/set-summary", r#"{"summary":"evil","source":"session"}"#),
        ("POST", "/v1/take", r#"{"lease":"evil","route":"check_messages"}"#),
        ("POST", "/v1/acknowledge", r#"{"route":"inbox","messages":[]}"#),
        ("POST", "/v1/unregister", "{}"),
    ];
    for (method, path, body) in unknown {
        let process = format!("Process {}", std::process::id());
        for http in [one.clone(), outside.over(&one), one.as_peer("none"), inside.over(&two)] {
            let answer = http.request(method, path, &[("Content-Type", "application/json")], body);
            assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{method} {path}: {}", answer.body);
        }
        let headers = [("Content-Type", "application/json"), ("Authorization", process.as_str())];
        let answer = one.request(method, path, &headers, body);
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{method} {path}: {}", answer.body);
    }
    // Nor does a secret from inside count outside.
    assert_eq!(inside.over(&broker.http()).get("/v1/whoami").code(), "unauthorized");
    assert_eq!(inside.over(&one).get(&format!("/v1/messages/{message}")).code(), "forbidden");
    assert_eq!(broker.stored(), (before.0 + 1, before.1));
    assert_eq!(inside.over(&one).get("/v1/peers?scope=machine").json()["peers"][0]["name"], "victim");
}

#[test]
fn claims_from_a_container_count_for_nothing() {
    let (broker, place) = (Broker::start(), folder());
    let folder = open(&broker, "one");
    let one = through(&folder);
    let (me, head, status) = (std::process::id(), place.path().join("HEAD"), place.path().join("status.json"));
    fs::write(&head, "ref: refs/heads/outside\n").unwrap();
    fs::write(&status, r#"{"status":"busy"}"#).unwrap();
    let started = fs::read_to_string(format!("/proc/{me}/stat")).unwrap();
    let started: u64 = started.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap();
    let host = json!({"pid": me, "started": started});
    let outside = Peer::register(&broker.http(), "outside", json!({"host": host, "sessionId": "s-1", "hookToken": "token"}));
    let evil = Peer::register(
        &one,
        "outside",
        json!({
            "host": host, "sessionId": "s-1", "hookToken": "token", "tty": "/dev/pts/3", "statusFile": status, "cwd": place.path(),
            "inbox": place.path().join("inbox"),
            "git": {"commonDir": place.path(), "head": head, "repo": "shop", "branch": "inside"},
        }),
    );
    assert_ne!(evil.id, outside.id, "neither its process nor its session makes it the peer outside");
    let _stream = evil.follow(&one);
    let peer = listed(&broker, &evil.id);
    assert_eq!((&peer["gitBranch"], &peer["container"]), (&json!("inside"), &json!("one")), "no file outside was read: {peer}");
    assert!(["pid", "tty", "activity"].iter().all(|field| peer.get(field).is_none()), "{peer}");
    // Its hook's token is another one than the same token outside.
    let hooked = json!({"event": "UserPromptSubmit", "cwd": "/moved"});
    let hook = |http: &Http, token: &str| {
        let headers = [("Content-Type", "application/json"), ("Authorization", token)];
        assert_eq!(http.request("POST", "/v1/hook", &headers, &hooked.to_string()).status, 200);
    };
    hook(&one, "Session token");
    assert_eq!((&listed(&broker, &evil.id)["cwd"], &listed(&broker, &outside.id)["cwd"]), (&json!("/moved"), &json!("/tmp")));
    hook(&through(&open(&broker, "two")), "Session token");
    hook(&one, &format!("Process {me}"));
    assert_eq!(listed(&broker, &outside.id)["cwd"], "/tmp");
}

#[test]
fn bypassed_prompts_in_a_container_count_only_there() {
    let broker = Broker::start();
    let one = through(&open(&broker, "one"));
    let bypasses = json!({"bypasses": true, "inbound": "match"});
    let outside = Peer::register(&broker.http(), "outside", bypasses.clone());
    let beside = Peer::register(&one, "beside", bypasses.clone());
    let inside = Peer::register(&one, "inside", bypasses);
    let send =
        |to: &Peer| inside.over(&one).post("/v1/send", &json!({"to": to.id, "text": "rm -r build"})).json()["state"].clone();
    assert_eq!((send(&outside), send(&beside)), (json!("held"), json!("queued")));
    // Nor does the client outside, which lets in a frame of its own mode, see another mode.
    let place = folder();
    let mut bob = Agent::with(&broker, place.path(), "s-1", &["--dangerously-skip-permissions"], &[]);
    let bob_id = bob.session.id();
    let sent = inside.over(&one).post("/v1/send", &json!({"to": bob_id, "text": "rm -r build"})).json();
    assert_eq!(sent["state"], "held");
    assert!(bob.frame().content.contains("from-mode=\"prompting\""), "{}", bob.frame().content);
}

#[test]
fn name_of_a_gone_session_is_for_no_container() {
    let broker = Broker::start();
    let one = through(&open(&broker, "one"));
    let outside = Peer::register(&broker.http(), "outside", json!({"cwd": "/shop"}));
    assert_eq!(outside.over(&broker.http()).post("/v1/unregister", &json!({})).status, 200);
    let inside = Peer::register(&one, "inside", json!({"cwd": "/shop"}));
    assert_eq!((outside.name.as_str(), inside.name.as_str()), ("shop", "shop-2"));
    let sent = broker.http().post("/v1/send", &json!({"to": "shop", "text": "The key is under the mat"})).json();
    assert_eq!(sent["to"], outside.id.as_str(), "{sent}");
    // Among sessions of one place, the name is free again.
    assert_eq!(inside.over(&one).post("/v1/unregister", &json!({})).status, 200);
    assert_eq!(Peer::register(&one, "again", json!({"cwd": "/shop-2"})).name, "shop-2");
    assert_eq!(Peer::register(&broker.http(), "next", json!({"cwd": "/shop"})).name, "shop");
}

#[test]
fn session_that_switches_gets_what_others_held() {
    let broker = Broker::start();
    let one = through(&open(&broker, "one"));
    let first = Peer::register(&one, "first", json!({"sessionId": "s-1"}));
    broker.http().post("/v1/send", &json!({"to": first.id, "text": "Which port?"}));
    let take = |lease: &str| json!({"lease": lease, "route": "check_messages"});
    let taken = first.over(&one).post("/v1/take", &take("l-1")).json();
    assert_eq!(taken["messages"][0].get("repeat"), None, "{taken}");
    assert_eq!(first.over(&one).post("/v1/unregister", &json!({})).status, 200);

    let second = Peer::register(&one, "second", json!({"sessionId": "s-2", "hookToken": "token"}));
    let headers = [("Content-Type", "application/json"), ("Authorization", "Session token")];
    let hooked = json!({"event": "UserPromptSubmit", "sessionId": "s-1"});
    assert_eq!(one.request("POST", "/v1/hook", &headers, &hooked.to_string()).status, 200);
    assert_eq!(second.over(&one).get("/v1/whoami").json()["id"], first.id.as_str());
    let taken = second.over(&one).post("/v1/take", &take("l-2")).json();
    assert_eq!(
        (&taken["messages"][0]["text"], &taken["messages"][0]["repeat"]),
        (&json!("Which port?"), &json!(true)),
        "{taken}"
    );
}

#[test]
fn session_in_a_container_outlives_the_broker() {
    if !are_possible() {
        return;
    }
    let (mut broker, place) = (Broker::start(), folder());
    let folder = open(&broker, "shop");
    let mut inside = session(&broker, &folder, place.path(), "s-1");
    let id = inside.id();
    broker.restart();
    assert_eq!(inside.id(), id, "its folder shows the new socket");
    let sent = broker.http().post("/v1/send", &json!({"to": id, "text": "Which port?"})).json();
    assert_eq!(inside.pushed()["meta"]["message_id"], sent["messageId"]);
    assert_eq!(broker.terminate().code(), Some(0));
    broker.launch();
    assert_eq!(inside.id(), id, "also after an orderly stop");
}

#[test]
fn session_of_a_killed_container_is_gone() {
    if !are_possible() {
        return;
    }
    let (broker, place) = (Broker::start(), folder());
    let folder = open(&broker, "shop");
    let mut inside = session(&broker, &folder, place.path(), "s-1");
    let id = inside.id();
    let mut watched = Events::watch(&broker.http());
    inside.kill();
    let left = std::iter::from_fn(|| watched.next()).find(|(name, _)| name == "left").unwrap();
    assert_eq!(left.1, id.as_str());
    let sent = broker.http().post("/v1/send", &json!({"to": id, "text": "Which port?"})).json();
    let mut resumed = session(&broker, &folder, place.path(), "s-1");
    assert_eq!(resumed.pushed()["meta"]["message_id"], sent["messageId"], "mail waits for the session");
    assert_eq!(resumed.id(), id);
}

#[test]
fn closed_container_is_cut_off() {
    let mut broker = Broker::start();
    let folder = open(&broker, "shop");
    assert_eq!(open(&broker, "shop"), folder, "opening it again changes nothing");
    let peer = Peer::register(&through(&folder), "one", json!({}));
    let mut stream = peer.follow(&through(&folder));
    assert_eq!(broker.cli_json(&["container", "shop", "--close"]), (0, json!({"ok": true})));
    assert_eq!(stream.next(), None, "its streams end");
    assert!(!folder.exists());
    // What a killed broker did not remove any more goes, too.
    let left = folder.with_file_name(".closed-left");
    fs::create_dir(&left).unwrap();
    let (code, error) = broker.cli_json(&["container", "shop", "--close"]);
    assert_eq!((code, &error["error"]["code"]), (4, &json!("container_not_found")), "{error}");
    broker.restart();
    assert_eq!(broker.cli_json(&["container", "--list"]).1, json!({"containers": []}));
    assert!(!folder.exists(), "it stays closed");
    eventually("the rest of a closed folder is gone", || (!left.exists()).then_some(()));
}

#[test]
fn names_and_words_are_checked() {
    let broker = Broker::start();
    let long = "x".repeat(33);
    for name in ["..", ".new", "a/b", "a b", "-a", "", "ü", long.as_str()] {
        let (code, error) = broker.cli_json(&["container", "--", name]);
        assert_eq!((code, &error["error"]["code"]), (2, &json!("usage")), "{name:?}: {error}");
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = broker.http().post(&format!("/v1/containers/{encoded}/open"), &json!({}));
        assert!(["invalid_id", "not_found"].contains(&answer.code().as_str()), "{name:?}: {}", answer.body);
    }
    let output = broker.cli(&["container", "shop"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let folder = broker.folder().join("run/containers/shop");
    let mount = format!("type=bind,src={},dst=/run/claude-peers,readonly", folder.display());
    for line in [
        format!("  --mount {mount} --env CLAUDE_PEERS_SOCKET=/run/claude-peers/broker.sock\n"),
        "  \"initializeCommand\": \"claude-peers container shop\",\n".to_owned(),
        format!("  \"mounts\": [\"{mount}\"],\n"),
        "  \"containerEnv\": {\"CLAUDE_PEERS_SOCKET\": \"/run/claude-peers/broker.sock\"}\n".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} {text}");
    }
    let session = Peer::register(&broker.http(), "one", json!({}));
    for (method, path, body) in
        [("GET", "/v1/containers", ""), ("POST", "/v1/containers/x/open", "{}"), ("POST", "/v1/containers/shop/close", "{}")]
    {
        let answer = session.over(&broker.http()).request(method, path, &[("Content-Type", "application/json")], body);
        assert_eq!(answer.code(), "forbidden", "{path}");
    }
}

#[test]
fn only_the_mount_lets_another_user_in() {
    let Some(mut stranger) = Other::user() else { return };
    let broker = Broker::start();
    let shared = open(&broker, "shop");
    fs::set_permissions(broker.folder(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(broker.folder().join("run"), Permissions::from_mode(0o755)).unwrap();
    let request = broker.http().written("GET", "/v1/hello", &[], "");
    let why = stranger.says(shared.join("broker.sock").to_str().unwrap(), &request).expect_err("the folder is closed");
    assert!(why.contains("cannot connect"), "{why}");

    // A user inside, whom nobody outside knows, reaches the broker, and is told what the socket is for.
    let program = broker.folder().join("claude-peers");
    fs::copy(env!("CARGO_BIN_EXE_claude-peers"), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let commands = [(&["send", "cli", "hello"][..], "unauthorized"), (&["status"], "forbidden"), (&["stop"], "forbidden")];
    let as_users = commands.into_iter().flat_map(|(words, code)| [false, true].map(|is_mapped| (words, code, is_mapped)));
    for (words, code, is_mapped) in as_users.filter(|(_, _, is_mapped)| !is_mapped || are_possible()) {
        let mut command = std::process::Command::new(&program);
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", "/").current_dir("/").args(words).arg("--json");
        let output = inside_as_another_user(&shared, &command, is_mapped).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(5), "{words:?}: {said} {}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains(code) && said.contains("the container shop"), "{words:?}: {said}");
    }
}

#[test]
fn files_of_a_container_are_not_followed() {
    let mut broker = Broker::start();
    let (folder, private) = (open(&broker, "shop"), broker.folder().join("private"));
    fs::write(&private, "private").unwrap();
    fs::set_permissions(&private, Permissions::from_mode(0o600)).unwrap();
    broker.kill();
    // What a container could do to a folder that is not mounted for reading alone.
    fs::remove_file(folder.join("broker.sock")).unwrap();
    symlink(&private, folder.join("broker.sock")).unwrap();
    symlink(broker.folder(), folder.join("link")).unwrap();
    broker.launch();
    assert_eq!(fs::metadata(&private).unwrap().mode() & 0o777, 0o600);
    assert_eq!(through(&folder).get("/v1/hello").status, 200);
    assert_eq!(broker.cli_json(&["container", "shop", "--close"]).0, 0);
    assert!(private.exists() && !folder.exists());

    // One that cannot be opened is reported and hinders nobody else.
    let folder = open(&broker, "other");
    broker.kill();
    fs::remove_file(folder.join("broker.sock")).unwrap();
    fs::create_dir(folder.join("broker.sock")).unwrap();
    broker.launch();
    let notices = broker.http().get("/v1/status").json()["notices"].to_string();
    assert!(notices.contains("the socket of the container other cannot be opened"), "{notices}");
}

#[test]
fn container_that_takes_all_hinders_nobody() {
    let broker = Broker::start();
    let (folder, other) = (open(&broker, "greedy"), through(&open(&broker, "other")));
    let greedy = through(&folder);
    let peers: Vec<Peer> = (0..64).map(|number| Peer::register(&greedy, &format!("session-{number}"), json!({}))).collect();
    let mut streams: Vec<Events> = peers.iter().map(|peer| peer.follow(&greedy)).collect();
    let facts = json!({"client": {"name": "test", "version": "0"}, "instance": "one-more", "pid": 1, "cwd": "/tmp"});
    let answer = greedy.post("/v1/register", &facts);
    assert_eq!((answer.status, answer.code().as_str()), (503, "busy"), "{}", answer.body);
    assert_eq!(other.post("/v1/register", &facts).status, 200);

    // One that has left makes room, and does not come back beside the one that took it.
    assert_eq!(peers[0].over(&greedy).post("/v1/unregister", &json!({})).status, 200);
    let last = Peer::register(&greedy, "one-more", json!({}));
    streams.push(last.follow(&greedy));
    let again = |body: &Value| peers[0].over(&greedy).post("/v1/register", body);
    assert_eq!((again(&facts).code(), peers[0].over(&greedy).get("/v1/events").code()), ("busy".into(), "busy".into()));

    let idle: Vec<_> = (0..300).map(|_| greedy.connect()).collect();
    let answer = eventually("it has no place left", || greedy.try_get("/v1/hello").ok().filter(|answer| answer.status == 503));
    assert_eq!(answer.code(), "busy");
    assert_eq!((other.get("/v1/hello").status, broker.http().get("/v1/hello").status), (200, 200));
    drop((streams, idle));

    for number in 2..32 {
        open(&broker, &format!("container-{number}"));
    }
    let (code, error) = broker.cli_json(&["container", "one-more"]);
    assert_eq!((code, &error["error"]["code"]), (5, &json!("busy")), "{error}");
    assert!(!broker.folder().join("run/containers/one-more").exists());
}

#[test]
fn container_does_not_fill_the_memory() {
    let broker = Broker::start();
    let one = through(&open(&broker, "one"));
    let facts =
        |instance: &str| json!({"client": {"name": "test", "version": "0"}, "instance": instance, "pid": 1, "cwd": "/tmp"});
    for (field, more) in [
        ("git.repo", json!({"git": {"commonDir": "/a", "head": "/a", "repo": "x".repeat(5_000)}})),
        ("git.branch", json!({"git": {"commonDir": "/a", "head": "/a", "repo": "a", "branch": "x".repeat(5_000)}})),
        ("client.name", json!({"client": {"name": "x".repeat(5_000), "version": "0"}})),
        ("client.version", json!({"client": {"name": "test", "version": "x".repeat(5_000)}})),
        ("agent.name", json!({"agent": {"name": "x".repeat(5_000), "version": "0"}})),
        ("agent.version", json!({"agent": {"name": "test", "version": "x".repeat(5_000)}})),
    ] {
        let mut facts = facts("long");
        facts.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = one.post("/v1/register", &facts);
        assert_eq!(answer.code(), "invalid_request", "{field}: {}", answer.body);
        assert!(answer.body.contains(&format!("{field} has more than 4096 bytes")), "{}", answer.body);
    }
    let mut conversation = one.converse();
    for number in 0..1_000 {
        let peer = conversation.ask("POST", "/v1/register", &facts(&format!("session-{number}")).to_string()).json();
        assert_eq!(one.as_peer(peer["secret"].as_str().unwrap()).post("/v1/unregister", &json!({})).status, 200);
    }
    let answer = conversation.ask("POST", "/v1/register", &facts("one-more").to_string());
    assert_eq!((answer.status, answer.code().as_str()), (503, "busy"), "{}", answer.body);
    let known = conversation.ask("POST", "/v1/register", &facts("session-7").to_string());
    assert_eq!(known.status, 200, "a known one comes back: {}", known.body);
}

#[test]
fn folder_of_another_program_is_left_alone() {
    let place = folder();
    let (socket, others) = (place.path().join("own.sock"), place.path().join("containers/theirs"));
    fs::create_dir_all(&others).unwrap();
    let mut broker = Broker::with(&[("CLAUDE_PEERS_SOCKET", socket.to_str().unwrap())]);
    let say = |broker: &Broker, words: &[&str]| -> Value {
        let output = broker.cli(words).arg("--json").env("CLAUDE_PEERS_SOCKET", &socket).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let ours = place.path().join("own.sock.containers");
    assert_eq!(say(&broker, &["container", "shop"])["folder"], ours.join("shop").to_str().unwrap());
    assert_eq!(say(&broker, &["container", "--list"])["containers"].as_array().unwrap().len(), 1);
    assert_eq!(fs::read_dir(&others).unwrap().count(), 0);
    say(&broker, &["container", "shop", "--close"]);
    broker.terminate();
    // One that others may enter is not ours, either.
    fs::set_permissions(&ours, Permissions::from_mode(0o755)).unwrap();
    broker.launch();
    let error = say(&broker, &["container", "shop"])["error"].clone();
    assert_eq!(error["code"], "internal", "{error}");
    assert!(error.to_string().contains("others may enter the folder"), "{error}");
}

#[test]
fn sessions_of_a_container_share_a_rate() {
    let broker = Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "1"), ("CLAUDE_PEERS_RATE_BURST", "1")]);
    let one = through(&open(&broker, "one"));
    let outside = Peer::register(&broker.http(), "outside", json!({}));
    let peers: Vec<Peer> = (0..20).map(|number| Peer::register(&one, &format!("session-{number}"), json!({}))).collect();
    let message = json!({"to": outside.id, "text": "hello"});
    let accepted = peers.iter().map(|peer| peer.over(&one).post("/v1/send", &message).status == 200);
    assert_eq!(accepted.collect::<Vec<_>>(), (0..20).map(|number| number < 8).collect::<Vec<_>>());
    let other = Peer::register(&broker.http(), "other", json!({}));
    assert_eq!(other.over(&broker.http()).post("/v1/send", &message).status, 200, "others are not held up");
}

#[test]
fn broker_with_an_open_container_stays() {
    let mut broker = Broker::with(&[("CLAUDE_PEERS_IDLE_EXIT", "1s")]);
    open(&broker, "shop");
    assert_eq!(broker.tells_within(std::time::Duration::from_secs(3)), None, "it does not say that it stops");
    assert_eq!(broker.cli_json(&["container", "shop", "--close"]).0, 0);
    assert_eq!(broker.wait().code(), Some(0));
    eventually("it has left", || broker.log().contains("nobody is connected").then_some(()));
}
