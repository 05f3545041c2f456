//! A session's agent process is the one at the other end of the inbox socket.

use super::{Scene, directory};
use crate::support::{Broker, Session, agent::Agent, eventually, folder, git, mcp::SERVER};
use serde_json::json;
use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, fs::symlink, net::UnixListener},
    process::Command,
};

#[test]
fn agent_is_found_through_wrappers_and_renames() {
    let (broker, place) = (Broker::start(), folder());
    let script = format!("env true; '{SERVER}'; true");
    let mut bob = Agent::launch(&broker, place.path(), "s-1", &[], &[], &["sh", "-c", &script]);
    bob.session.handshake();
    bob.session.id();
    let peer = broker.peers().remove(0);
    assert_eq!((&peer["pid"], &peer["delivery"]), (&json!(bob.pid()), &json!("inbox")));
}

#[test]
fn inherited_environment_does_not_make_a_session() {
    let mut scene = Scene::new();
    let bob = scene.bob.session.id();
    // The session's shell starts another agent's server, whose client names itself.
    let output = folder();
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "codex-mcp-client", "version": "1"}}});
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
        "params": {"name": "list_peers", "arguments": {"scope": "machine"}}});
    let says = format!("{initialize}\n{list}\n");
    fs::write(output.path().join("says"), says).unwrap();
    let f = output.path().display();
    scene.bob.run(
        &format!(
            "(cat '{f}/says'; while [ ! -e '{f}/end' ]; do sleep 0.05; done) | CLAUDE_CODE_SESSION_ID=s-1 '{SERVER}' >'{f}/out'"
        ),
        "",
    );
    let visitor = eventually("the visitor is told who it is", || {
        let out = fs::read_to_string(output.path().join("out")).ok()?;
        let line = out.lines().find(|line| line.contains("\"id\":2"))?;
        let answer: serde_json::Value = serde_json::from_str(line).ok()?;
        answer["result"]["structuredContent"]["self"]["id"].as_str().map(str::to_owned)
    });
    assert_ne!(visitor, bob);
    let id = scene.send("for bob");
    assert_eq!(scene.bob.frame().ids(), [id]);
    fs::write(output.path().join("end"), "").unwrap();
    eventually("the visitor has left", || scene.broker.peers().iter().all(|peer| peer["id"] != visitor.as_str()).then_some(()));
    assert_eq!(scene.bob.session.id(), bob, "the session is who it was");
}

#[test]
fn nested_agent_does_not_take_the_inbox() {
    let (broker, place) = (Broker::start(), folder());
    // The same program also runs between the server and the process that listens.
    let inner = "open STDERR, '>&', STDERR; my $p = fork; if (!$p) { exec @ARGV } waitpid $p, 0";
    let mut bob = Agent::launch(&broker, place.path(), "s-1", &[], &[], &["perl", "-e", inner, SERVER]);
    bob.session.handshake();
    bob.session.id();
    let peer = broker.peers()[0].clone();
    assert_eq!(peer["delivery"], "pull");
    assert_ne!(peer["pid"], bob.pid());
}

#[test]
fn foreign_inbox_is_not_used() {
    let (broker, place) = (Broker::start(), folder());
    let at = |name: &str| place.path().join(name);
    let _open = UnixListener::bind(at("open")).unwrap();
    fs::set_permissions(at("open"), Permissions::from_mode(0o666)).unwrap();
    let _own = UnixListener::bind(at("own")).unwrap();
    fs::set_permissions(at("own"), Permissions::from_mode(0o600)).unwrap();
    symlink(at("own"), at("link")).unwrap();
    fs::write(at("file"), "").unwrap();
    for (name, why) in [
        ("open", "may be written by other users"),
        ("link", "is not a socket"),
        ("file", "is not a socket"),
        ("none", "No such file"),
    ] {
        let env = vec![("CLAUDE_CODE_MESSAGING_SOCKET".to_owned(), at(name).display().to_string())];
        let start = crate::support::mcp::Start { broker: &broker, directory: place.path(), session_id: name, delivery: "", env };
        let mut session = start.go();
        session.id();
        assert!(session.log().contains(why), "{name}: {}", session.log());
        let peer = session.list()["self"].clone();
        assert_eq!(peer["delivery"], "pull", "{name}");
    }
}

#[test]
fn inbox_that_opens_later_is_found() {
    let (broker, place) = (Broker::start(), folder());
    let mut bob = Agent::launch(&broker, place.path(), "s-1", &[], &[], &[SERVER]);
    let away = place.path().join("away");
    let inbox = bob.inbox();
    eventually("the agent listens", || inbox.exists().then_some(()));
    fs::rename(&inbox, &away).unwrap();
    bob.session.handshake();
    bob.session.id();
    let route = || broker.peers()[0]["delivery"].clone();
    assert_eq!(route(), "pull");
    fs::rename(&away, &inbox).unwrap();
    eventually("it is found", || (route() == "inbox").then_some(()));
}

#[test]
fn hook_reports_the_directory_of_the_session() {
    let scene = Scene::new();
    let repo = directory(&scene.place, "repo");
    git::repository(&repo);
    scene.bob.prompt(json!({"cwd": repo}));
    let peer = eventually("it has moved", || Some(scene.peer()).filter(|peer| peer["cwd"] == json!(repo)));
    assert_eq!((&peer["gitRepo"], &peer["gitBranch"]), (&json!("repo"), &json!("main")));
    let list = scene.broker.http().get(&format!("/v1/peers?scope=repo&cwd={}", repo.display())).json();
    assert_eq!(list["peers"][0]["name"], "bob");
}

#[test]
fn cleared_session_is_resumed_by_its_new_id() {
    let mut scene = Scene::new();
    let id = scene.bob.session.id();
    scene.bob.prompt(json!({"session_id": "s-9"}));
    let Scene { broker, place, bob, .. } = scene;
    drop(bob);
    let mut bob = Agent::start(&broker, &directory(&place, "elsewhere"), "s-9");
    assert_eq!(bob.session.id(), id);
}

#[test]
fn old_hooks_exit_at_once_silently() {
    let scene = Scene::new();
    let input = json!({"session_id": "s-1", "prompt": "id m1-abc · x"}).to_string();
    for event in ["SessionStart", "Stop", "PostToolUse", "TurnStart", "SessionEnd", "Other"] {
        assert_eq!(scene.bob.run_hook(event, &input), (0, String::new()), "{event}");
    }
    for broken in ["", "{", "[]", "{\"session_id\": 1}"] {
        assert_eq!(scene.bob.run_hook("UserPromptSubmit", broken), (0, String::new()), "{broken}");
    }
    let mut stranger = Session::pulling(&scene.broker, scene.place.path(), "s-7");
    assert!(stranger.peers().iter().any(|peer| peer["name"] == "bob"));
}

#[test]
fn only_one_server_of_a_session_writes() {
    let (broker, place) = (Broker::start(), folder());
    let file = |name: &str| place.path().join(name).display().to_string();
    let (input, output) = (file("in"), file("out"));
    assert!(Command::new("mkfifo").args([&input, &output]).status().unwrap().success());
    // The second server starts when the other ends of its pipes are opened.
    let script = format!("'{SERVER}' <'{input}' >'{output}' & '{SERVER}'; true");
    let mut bob = Agent::launch(&broker, &directory(&place, "bob"), "s-1", &[], &[], &["sh", "-c", &script]);
    bob.session.handshake();
    let id = bob.session.id();
    let mut relay = Command::new("sh");
    relay.args(["-c", r#"cat "$0" & exec cat >"$1""#, &output, &input]);
    let mut second = Session::spawn(relay);
    second.handshake();
    let connected = || (bob.session.log().matches("connected as").count() == 2).then_some(());
    eventually("the second serves, and the first stands by", connected);
    let mut ada = Session::pulling(&broker, &directory(&place, "ada"), "s-2");
    let mut written = Vec::new();
    for text in ["one", "two", "three"] {
        let sent = ada.send("bob", text)["messageId"].as_str().unwrap().to_owned();
        let frame = bob.frame();
        assert_eq!(frame.ids(), [sent.as_str()]);
        bob.let_in(&frame);
        written.push(sent);
        // Both work when called, and the one called last writes the frames.
        let called = if text == "one" { &mut bob.session } else { &mut second };
        assert_eq!(called.id(), id);
    }
    for sent in written {
        assert_eq!(broker.message_once("delivered", &json!(sent))["route"], "inbox");
    }
    assert_eq!(bob.frames().len(), 0);
}
