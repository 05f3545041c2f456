//! Whose hook a hook is, through everything that becomes of a session.

use super::{Scene, WAITING};
use crate::support::{Broker, eventually, folder, hooks::Claude};
use serde_json::{Value, json};

#[test]
fn a_cleared_session_is_the_same_peer_and_is_found_by_its_new_id() {
    let scene = Scene::new();
    let first = scene.waiter("SessionStart");
    let before = scene.peer()["id"].clone();
    scene.claude.hook("SessionEnd", "s-1", json!({"reason": "clear"})).left_silently();
    let hook = scene.claude.hook("SessionStart", "s-2", json!({"source": "clear"}));
    first.left_silently();
    scene.once_reason_is(WAITING);
    assert_eq!(scene.peer()["id"], before);
    scene.send("still you?");
    assert!(hook.woke().contains("still you?"));

    let Scene { broker, place, claude } = scene;
    drop(claude);
    let mut resumed = Claude::start(&broker, place.path(), "s-2");
    assert_eq!(json!(resumed.session.id()), before);
}

#[test]
fn a_session_that_turns_to_the_conversation_of_one_that_is_gone_is_that_one_from_then_on() {
    let scene = Scene::new();
    let first = scene.peer()["id"].clone();
    let Scene { broker, place, claude } = scene;
    drop(claude);
    let peers = || broker.http().get("/v1/peers?scope=machine").json()["peers"].as_array().unwrap().len();
    eventually("it is gone", || (peers() == 0).then_some(()));
    let claude = Claude::start(&broker, place.path(), "s-2");
    let mut scene = Scene { broker, place, claude };
    let second = eventually("another session", || scene.peers().pop())["id"].clone();
    let old = scene.claude.hook("SessionStart", "s-2", json!({"source": "startup"}));
    scene.once_reason_is(WAITING);
    for (session, id, other, text) in
        [("s-1", &first, &second, "for the first"), ("s-2", &second, &first, "for the second"), ("s-1", &first, &second, "more")]
    {
        let sent = scene.broker.http().post("/v1/send", &json!({"to": id, "text": text})).json();
        let hook = scene.claude.hook("SessionStart", session, json!({"source": "resume"}));
        assert!(hook.woke().contains(text));
        scene.assert_delivered_by_hook(&sent["messageId"]);
        // Its server goes on as that one, also with the next broker, and what it was is gone.
        assert_eq!(json!(scene.claude.session.id()), *id);
        scene.broker.restart();
        assert_eq!(json!(scene.claude.session.id()), *id);
        assert!(scene.peers().iter().all(|peer| peer["id"] != *other), "{:?}", scene.peers());
    }
    old.left_silently();

    // One that runs elsewhere is left alone.
    let mut other = Claude::start(&scene.broker, scene.place.path(), "s-2");
    assert_eq!(json!(other.session.id()), second);
    scene.claude.hook("Stop", "s-2", json!({}));
    eventually("it waits", || scene.peers().into_iter().find(|peer| peer["id"] == first && peer["deliveryReason"] == WAITING));
    assert_eq!((json!(scene.claude.session.id()), json!(other.session.id())), (first, second));
}

#[test]
fn sessions_in_one_directory_get_their_own_mail() {
    let (broker, place) = (Broker::start(), folder());
    let ids = ["s-1", "s-2", "s-3"];
    let mut claudes = ids.map(|id| Claude::start(&broker, place.path(), id));
    let peers: Vec<_> = claudes.iter_mut().map(|claude| claude.session.id()).collect();
    let hooks: Vec<_> = claudes.iter().zip(ids).map(|(claude, id)| claude.hook("Stop", id, json!({}))).collect();
    for (number, peer) in peers.iter().enumerate() {
        broker.http().post("/v1/send", &json!({"to": peer, "text": format!("for {number}")})).json();
    }
    for (number, hook) in hooks.iter().enumerate() {
        let said = hook.woke();
        assert!(said.contains(&format!("\nfor {number}\n")) && said.matches("📨").count() == 1, "{said}");
    }
}

#[test]
fn a_session_leaves_the_list_when_it_ends_and_is_back_when_it_did_not() {
    let mut scene = Scene::new();
    let id = scene.peer()["id"].clone();
    scene.claude.hook("SessionEnd", "s-1", json!({"reason": "prompt_input_exit"})).left_silently();
    // Its server lives on and does not come back by itself.
    eventually("the server knows", || scene.claude.session.log().contains("the session has ended").then_some(()));
    assert_eq!(scene.peers(), [] as [Value; 0]);
    assert_eq!(json!(scene.claude.session.id()), id);
    assert_eq!(scene.peer()["id"], id);
}

#[test]
fn a_hook_speaks_for_nobody_but_the_process_that_started_it() {
    let scene = Scene::new();
    scene.send("secret plan");
    let claude = scene.peer()["pid"].clone();
    let take = json!({"lease": "x", "route": "hook"}).to_string();
    for process in [claude.to_string(), "1".to_owned(), String::new(), "x".to_owned(), std::process::id().to_string()] {
        let authorization = format!("Process {process}");
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
        for path in ["/v1/take", "/v1/unregister"] {
            for http in [scene.broker.http(), scene.broker.tcp()] {
                let answer = http.request("POST", path, &headers, &take);
                assert_eq!((answer.status, &*answer.code()), (401, "unauthorized"), "{path} as {process:?}");
            }
        }
        let answer = scene.broker.http().request("POST", "/v1/hook", &headers, r#"{"event": "PostToolUse"}"#);
        assert_eq!(answer.json()["waiting"], 0);
    }
    let answer = scene.broker.http().post("/v1/wait", &json!({"lease": "x"}));
    assert_eq!(answer.code(), "unauthorized");
    // A session inside of a session, which has no server of its own.
    let input = json!({"session_id": "inner"}).to_string();
    scene.claude.raw_hook("PostToolUse", &input, "CLAUDE_PID=$(sh -c 'echo $PPID')").left_silently();
    assert_eq!(scene.peer()["waiting"], 1);
}
