//! Messages that are held for the session's user, and how the user lets them in.

use super::{BYPASS, Scene, directory};
use crate::support::{
    Broker, Session, agent::Agent, events::Peer, eventually, managed::MANAGED, mcp::SERVER, mount::with_mounts,
};
use serde_json::{Value, json};
use std::{fs, iter, process::Command};

fn settings(scene: &Scene, text: &str) {
    fs::create_dir_all(scene.broker.folder().join(".claude")).unwrap();
    fs::write(scene.broker.folder().join(".claude/settings.json"), text).unwrap();
}

/// The sender's permission mode in a frame.
fn mode(frame: &crate::support::agent::Frame) -> Option<&str> {
    frame.content.split("from-mode=\"").nth(1)?.split('"').next()
}

#[test]
fn prompting_sender_is_held_by_bypassing_session() {
    let mut scene = Scene::with(BYPASS, &[]);
    let sent = scene.ada.send("bob", "delete it all");
    let id = sent["messageId"].as_str().unwrap().to_owned();
    assert_eq!(sent["state"], "held");
    assert!(sent["warning"].as_str().unwrap().contains("bypasses permission prompts"), "{sent}");
    // The broker writes the frame. The client does not trust it, because the broker is not its child, and asks its user.
    let frame = scene.bob.frame();
    assert_eq!((frame.ids(), mode(&frame)), (vec![id.clone()], Some("prompting")));
    let held =
        eventually("it is known to be written", || Some(scene.once(&id, "held")).filter(|held| held.get("offeredAt").is_some()));
    assert_eq!(held["held"]["by"], "mode");
    // It takes no other route.
    assert_eq!(scene.bob.session.check(), [] as [Value; 0]);
    assert_eq!(scene.bob.session.list().get("incomingMessages"), None);
    // The user lets it in.
    scene.bob.prompt(json!({"prompt": frame.content, "permission_mode": "bypassPermissions"}));
    scene.once(&id, "delivered");
}

#[test]
fn user_releases_a_held_message() {
    let mut scene = Scene::with(BYPASS, &[]);
    let id = scene.send("delete it all");
    scene.bob.frame();
    scene.once(&id, "held");
    // A session cannot release it, even if it hides that it is one.
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
fn user_messages_and_requested_answers_pass() {
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
fn only_senders_of_another_mode_are_held() {
    let scene = Scene::new();
    let mut eve = Agent::with(&scene.broker, &directory(&scene.place, "eve"), "s-3", BYPASS, &[]);
    let mut mia = Agent::with(&scene.broker, &directory(&scene.place, "mia"), "s-4", BYPASS, &[]);
    assert_eq!(eve.session.send("mia", "equal")["state"], "queued");
    assert_eq!(mode(&mia.frame()), None);
    assert_eq!(mia.session.send("bob", "unequal")["state"], "held");
    assert_eq!(mode(&scene.bob.frame()), Some("bypass"));
    // When the hook reports a change of the mode, held messages are released.
    eve.prompt(json!({"session_id": "s-3", "permission_mode": "bypassPermissions"}));
    scene.bob.prompt(json!({"permission_mode": "bypassPermissions"}));
    let frame = scene.bob.frame();
    assert!(frame.content.contains("> unequal") && frame.content.contains("possible repeat"), "{}", frame.content);
}

#[test]
fn accept_setting_lets_everything_in() {
    let mut scene = Scene::with(BYPASS, &[("CLAUDE_PEERS_INBOUND", "accept")]);
    let id = scene.send("accepted");
    assert_eq!(scene.bob.frame().ids(), [id]);
}

#[test]
fn inbound_setting_of_the_client_decides() {
    let mut scene = Scene::new();
    for (rule, posted) in [("hold", true), ("refuse", false)] {
        settings(&scene, &json!({"crossSessionInbound": rule}).to_string());
        scene.broker.restart(); // the session reads its settings again when it reconnects
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
        // The released message comes with a tool result, because the client would hold a frame again.
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

/// Where mounts are allowed.
#[test]
fn last_file_of_an_administrator_decides() {
    let mut scene = Scene::new();
    let managed = scene.place.path().join("managed");
    fs::create_dir_all(managed.join("managed-settings.d")).unwrap();
    for (file, rule) in [
        ("managed-settings.json", "accept"),
        ("managed-settings.d/10-a.json", "hold"),
        ("managed-settings.d/20-b.json", "refuse"),
    ] {
        fs::write(managed.join(file), json!({"crossSessionInbound": rule}).to_string()).unwrap();
    }
    settings(&scene, r#"{"crossSessionInbound": "accept"}"#);
    let Some(server) = with_mounts(&Command::new(SERVER), MANAGED, &managed) else { return };
    let words: Vec<&str> = iter::once(server.get_program()).chain(server.get_args()).map(|word| word.to_str().unwrap()).collect();
    let mut eve = Agent::launch(&scene.broker, &directory(&scene.place, "eve"), "s-3", &[], &[], &words);
    eve.session.handshake();
    eve.session.list(); // it is registered when this returns
    let id = scene.ada.send("eve", "an order")["messageId"].as_str().unwrap().to_owned();
    assert_eq!(scene.once(&id, "held")["held"]["by"], "refuse");
}

#[test]
fn invalid_inbound_setting_is_reported() {
    let scene = Scene::new();
    let directory = directory(&scene.place, "eve");
    let env = [("CLAUDE_PEERS_INBOUND", "sometimes")];
    let mut eve = Agent::launch(&scene.broker, &directory, "s-3", &[], &env, &[SERVER]);
    eve.session.handshake();
    let error = eve.session.tool_error("list_peers", json!({"scope": "machine"}));
    assert!(error.contains("CLAUDE_PEERS_INBOUND=\"sometimes\" cannot be used; allowed: match or accept"), "{error}");
    drop(Session::pulling(&scene.broker, &directory, "s-5"));
}

#[test]
fn long_held_message_is_whole_once_let_in() {
    let mut scene = Scene::with(BYPASS, &[]);
    let text = "long ".repeat(4_000);
    let id = scene.send(&text);
    let frame = scene.bob.frame();
    scene.once(&id, "held");
    // The user lets in the beginning.
    scene.bob.prompt(json!({"prompt": frame.content, "permission_mode": "bypassPermissions"}));
    scene.once(&id, "offered");
    assert_eq!(scene.bob.session.check()[0]["text"], text);
    scene.once(&id, "delivered");
}

#[test]
fn repeated_take_gets_what_it_leased_before_a_hold() {
    let broker = Broker::start();
    let http = broker.http();
    let agent = json!({"pid": std::os::unix::process::parent_id(), "started": 1});
    let [asker, worker] = [json!({}), json!({"inbox": "/tmp/inbox", "host": agent})]
        .map(|facts| Peer::register(&http, &format!("{}", facts.as_object().unwrap().len()), facts).over(&http));
    let worker_id = worker.get("/v1/peers?scope=machine").json()["self"]["id"].clone();
    let sent = asker.post("/v1/send", &json!({"to": worker_id, "text": "on its way"})).json();
    for inbound in ["match", "hold"] {
        let taken = worker.post("/v1/take", &json!({"lease": "l", "route": "inbox", "inbound": inbound})).json();
        assert_eq!(taken["messages"][0]["id"], sent["messageId"], "{inbound}: {taken}");
    }
}
