//! The controls of a session's user: what is held, and how it is let in.

use super::{Scene, directory};
use crate::support::{Session, agent::Agent, eventually};
use serde_json::{Value, json};
use std::fs;

const BYPASS: &[&str] = &["--dangerously-skip-permissions"];

fn settings(scene: &Scene, text: &str) {
    fs::create_dir_all(scene.broker.folder().join(".claude")).unwrap();
    fs::write(scene.broker.folder().join(".claude/settings.json"), text).unwrap();
}

/// What a frame says of its sender's permission mode.
fn mode(frame: &crate::support::agent::Frame) -> Option<&str> {
    frame.content.split("from-mode=\"").nth(1)?.split('"').next()
}

#[test]
fn a_session_that_asks_is_not_let_into_one_that_bypasses() {
    let mut scene = Scene::with(BYPASS, &[]);
    let sent = scene.ada.send("bob", "delete it all");
    let id = sent["messageId"].as_str().unwrap().to_owned();
    assert_eq!(sent["state"], "held");
    assert!(sent["warning"].as_str().unwrap().contains("bypasses permission prompts"), "{sent}");
    // The broker writes it, which is no child of the client: that holds it and asks its user.
    let frame = scene.bob.frame();
    assert_eq!((frame.ids(), mode(&frame)), (vec![id.clone()], Some("prompting")));
    let held =
        eventually("it is known to be written", || Some(scene.once(&id, "held")).filter(|held| held.get("offeredAt").is_some()));
    assert_eq!(held["held"]["by"], "mode");
    // No other way.
    assert_eq!(scene.bob.session.check(), [] as [Value; 0]);
    assert_eq!(scene.bob.session.tool("list_peers", json!({"scope": "machine"})).get("incomingMessages"), None);
    // The user lets it in there.
    scene.bob.prompt(json!({"prompt": frame.content, "permission_mode": "bypassPermissions"}));
    scene.once(&id, "delivered");
}

#[test]
fn what_is_held_comes_once_its_user_releases_it() {
    let mut scene = Scene::with(BYPASS, &[]);
    let id = scene.send("delete it all");
    scene.bob.frame();
    scene.once(&id, "held");
    // Not from within a session, whatever that says of itself.
    let cli = env!("CARGO_BIN_EXE_claude-peers");
    let file = scene.bob.run(&format!("env -u CLAUDE_PID -u CLAUDE_CODE_SESSION_ID '{cli}' release {id} --json"), "");
    let code = eventually("it ends", || fs::read_to_string(file.with_extension("code")).ok().filter(|code| !code.is_empty()));
    assert_eq!(code.trim(), "5", "{}", fs::read_to_string(file.with_extension("out")).unwrap());
    scene.once(&id, "held");
    let (code, said) = scene.broker.cli_json(&["release", &id]);
    assert_eq!(code, 0, "{said}");
    let frame = scene.bob.frame();
    assert_eq!((frame.ids(), mode(&frame)), (vec![id.clone()], None));
    assert!(frame.content.contains("possible repeat"), "{}", frame.content);
    let (code, _) = scene.broker.cli_json(&["release", &id]);
    assert_eq!(code, 4, "it is not held any more");
}

#[test]
fn the_users_own_messages_and_answers_that_were_asked_for_pass() {
    let mut scene = Scene::with(BYPASS, &[]);
    let (code, sent) = scene.broker.cli_json(&["send", "bob", "from the user"]);
    assert_eq!((code, &sent["state"]), (0, &json!("queued")));
    let frame = scene.bob.frame();
    assert_eq!(mode(&frame), None);
    scene.bob.prompt(json!({"prompt": frame.content, "permission_mode": "bypassPermissions"}));
    let asked = scene.bob.session.send("ada", "may I?")["messageId"].clone();
    let answer = scene.ada.tool("send_message", json!({"targetPeerId": "bob", "message": "yes", "replyTo": asked}));
    assert_eq!(answer["state"], "queued");
    assert!(scene.bob.frame().content.contains("> yes"));
}

#[test]
fn sessions_of_one_class_talk_and_an_unequal_sender_is_held_either_way() {
    let scene = Scene::new();
    let mut eve = Agent::with(&scene.broker, &directory(&scene.place, "eve"), "s-3", BYPASS, &[]);
    let mut mia = Agent::with(&scene.broker, &directory(&scene.place, "mia"), "s-4", BYPASS, &[]);
    assert_eq!(eve.session.send("mia", "equal")["state"], "queued");
    assert_eq!(mode(&mia.frame()), None);
    assert_eq!(mia.session.send("bob", "unequal")["state"], "held");
    assert_eq!(mode(&scene.bob.frame()), Some("bypass"));
    // A change of the mode, as the hook tells, lets go what it held.
    eve.prompt(json!({"session_id": "s-3", "permission_mode": "bypassPermissions"}));
    scene.bob.prompt(json!({"permission_mode": "bypassPermissions"}));
    let frame = scene.bob.frame();
    assert!(frame.content.contains("> unequal") && frame.content.contains("possible repeat"), "{}", frame.content);
}

#[test]
fn everything_is_let_in_where_the_user_says_so() {
    let mut scene = Scene::with(BYPASS, &[("CLAUDE_PEERS_INBOUND", "accept")]);
    let id = scene.send("accepted");
    assert_eq!(scene.bob.frame().ids(), [id]);
}

#[test]
fn the_clients_own_setting_decides_where_it_is_set() {
    let mut scene = Scene::new();
    for (rule, posted) in [("hold", true), ("refuse", false)] {
        settings(&scene, &json!({"crossSessionInbound": rule}).to_string());
        scene.broker.restart(); // the session looks again when it comes back
        scene.once_reason_has(&format!("its settings {rule}"));
        let sent = scene.ada.send("bob", rule);
        assert_eq!(sent["state"], "held");
        assert!(sent["warning"].as_str().unwrap().contains("crossSessionInbound"), "{sent}");
        if posted {
            assert!(scene.bob.frame().content.contains("> hold"));
        }
        let id = sent["messageId"].as_str().unwrap();
        assert_eq!(scene.once(id, "held")["held"]["by"], rule);
        assert_eq!(scene.bob.session.check(), [] as [Value; 0]);
        // Released, it goes beside a result: the client would hold it again.
        assert_eq!(scene.broker.cli_json(&["release", id]).0, 0);
        let check = scene.bob.session.check();
        assert_eq!(check[0]["id"], id);
        assert_eq!(check[0].get("repeat").is_some(), posted);
        scene.once(id, "delivered");
    }
    assert_eq!(scene.bob.frames().len(), 0);
    let late = scene.ada.send("bob", "late")["messageId"].as_str().unwrap().to_owned();
    settings(&scene, r#"{"crossSessionInbound": "accept"}"#);
    scene.broker.restart();
    assert_eq!(scene.bob.frame().ids(), [late]);
}

#[test]
fn a_setting_that_cannot_be_used_is_named() {
    let scene = Scene::new();
    let directory = directory(&scene.place, "eve");
    let env = [("CLAUDE_PEERS_INBOUND", "sometimes")];
    let mut eve = Agent::launch(&scene.broker, &directory, "s-3", &[], &env, &[crate::support::mcp::SERVER]);
    eve.session.handshake();
    let error = eve.session.tool_error("list_peers", json!({"scope": "machine"}));
    assert!(error.contains("CLAUDE_PEERS_INBOUND=\"sometimes\" cannot be used; allowed: match or accept"), "{error}");
    drop(Session::pulling(&scene.broker, &directory, "s-5"));
}
