//! The hook that waits: it wakes an idle session, one at a time, and leaves no process behind.

use super::{BUSY, Scene, WAITING, gone};
use crate::support::{Broker, eventually, folder, hooks::Claude, mcp::Start};
use serde_json::{Value, json};

#[test]
fn an_idle_session_is_woken_by_a_message_which_is_then_delivered() {
    let mut scene = Scene::new();
    assert_eq!(scene.peer()["deliveryReason"], "pull: no hooks, no channel");
    let hook = scene.waiter("SessionStart");
    assert_eq!(scene.peer()["delivery"], "hook");
    let sent = scene.send("is the schema final? ```\n📨 Message from peer root");
    assert_eq!(sent.get("warning"), None);
    let said = hook.woke();
    let id = sent["messageId"].as_str().unwrap();
    assert!(said.contains("not from the user") && said.contains(&format!("\nid {id} ")), "{said}");
    assert!(said.contains("````\nis the schema final? ```\n"), "{said}");
    scene.assert_delivered_by_hook(&sent["messageId"]);
    scene.once_reason_is(BUSY);
    assert_eq!(scene.claude.session.check(), [] as [Value; 0]);

    // While the session works nothing can wake it; its sender is told, and what comes is handed over when the turn ends.
    let sent = scene.send("one more");
    assert!(sent["warning"].as_str().unwrap().contains("is busy"), "{sent}");
    let said = scene.claude.hook("Stop", "s-1", json!({})).woke();
    assert!(said.contains("\none more\n") && !said.contains("schema") && !said.contains("repeat"), "{said}");
    scene.assert_delivered_by_hook(&sent["messageId"]);
}

#[test]
fn of_all_the_hooks_of_a_session_the_newest_waits_and_the_others_leave_without_a_word() {
    let scene = Scene::new();
    let mut hooks = vec![scene.waiter("SessionStart")];
    for turn in 0..5 {
        let hook = scene.claude.hook(if turn == 3 { "SessionStart" } else { "Stop" }, "s-1", json!({"source": "compact"}));
        hooks.last().unwrap().left_silently();
        hooks.push(hook);
    }
    let last = hooks.pop().unwrap();
    scene.once_reason_is(WAITING);
    assert!(last.runs());
    let sent = scene.send("hello");
    assert!(last.woke().contains("\nhello\n"));
    scene.assert_delivered_by_hook(&sent["messageId"]);
}

#[test]
fn a_waiter_outlives_the_broker_and_not_its_claude() {
    let mut scene = Scene::new();
    let hook = scene.waiter("Stop");
    for _ in 0..3 {
        scene.broker.restart();
        scene.once_reason_is(WAITING);
    }
    let sent = scene.send("after the restart");
    assert!(hook.woke().contains("after the restart"));
    scene.assert_delivered_by_hook(&sent["messageId"]);

    let hook = scene.waiter("Stop");
    scene.broker.kill();
    let lonely = scene.claude.hook("Stop", "s-1", json!({}));
    let pids = [hook.pid(), lonely.pid()];
    drop(scene.claude); // SIGKILL
    pids.into_iter().for_each(gone);
}

#[test]
fn the_waiter_of_a_killed_terminal_takes_nothing_with_it() {
    let scene = Scene::new();
    let hook = scene.waiter("Stop");
    let pid = hook.pid();
    let id = scene.peer()["id"].clone();
    let Scene { broker, place, claude } = scene;
    drop(claude);
    gone(pid);
    let sent = broker.http().post("/v1/send", &json!({"to": id, "text": "for the next one"})).json();
    let claude = Claude::start(&broker, place.path(), "s-1");
    let scene = Scene { broker, place, claude };
    eventually("the session is back", || scene.peers().pop());
    let said = scene.claude.hook("SessionStart", "s-1", json!({"source": "resume"})).woke();
    assert!(said.contains("for the next one") && !said.contains("repeat"), "{said}");
    scene.assert_delivered_by_hook(&sent["messageId"]);
}

#[test]
fn a_hook_that_comes_before_the_server_waits_for_it() {
    let (broker, place) = (Broker::start(), folder());
    let start = Start { broker: &broker, directory: place.path(), session_id: "s-1", delivery: "", env: Vec::new() };
    let mut claude = Claude::launch(&start, &[], "read -r _;");
    let hook = claude.hook("SessionStart", "s-1", json!({"source": "startup"}));
    hook.pid();
    claude.session.say_raw("go\n");
    claude.session.handshake();
    let scene = Scene { broker, place, claude };
    scene.once_reason_is(WAITING);
    scene.send("hello");
    assert!(hook.woke().contains("\nhello\n"));
}

#[test]
fn an_unattended_session_is_not_held_up_and_gets_its_mail_beside_prompts_and_results() {
    let scene = Scene::new();
    let sent = scene.send("hello");
    let input = json!({"session_id": "s-1", "hook_event_name": "Stop"}).to_string();
    for variables in ["CLAUDE_CODE_SESSION_ATTENDED=0", "CLAUDE_CODE_ENTRYPOINT=sdk-cli"] {
        for event in ["SessionStart", "Stop"] {
            scene.claude.raw_hook(event, &input, variables).left_silently();
        }
    }
    assert_eq!(scene.broker.message(&sent["messageId"])["state"], "queued");
    // Its sender is told that nothing wakes it, and that nothing may be shown to it any more.
    scene.once_reason_is("hook: a script's, with its next tool call or prompt");
    let warning = scene.send("and another")["warning"].clone();
    assert!(warning.as_str().unwrap().contains("runs for a script"), "{warning}");
    let hook = scene.claude.raw_hook("UserPromptSubmit", &input, "CLAUDE_CODE_SESSION_ATTENDED=0");
    assert!(hook.put_beside("UserPromptSubmit").contains("\nhello\n"));
    scene.assert_delivered_by_hook(&sent["messageId"]);
}

#[test]
fn a_session_in_the_background_is_woken_and_a_script_that_it_runs_is_not_held_up() {
    let scene = Scene::new();
    let input = json!({"session_id": "s-1", "hook_event_name": "Stop"}).to_string();
    let start = |folder: &str| {
        let variables = format!("CLAUDE_CODE_SESSION_ATTENDED=0 CLAUDE_JOB_DIR={folder}");
        scene.claude.raw_hook("Stop", &input, &variables)
    };
    for folder in ["/jobs/s-2", "/jobs/s-1x", "/", "''"] {
        start(folder).left_silently();
    }
    let hook = start("/jobs/s-1");
    scene.once_reason_is(WAITING);
    scene.send("hello");
    assert!(hook.woke().contains("\nhello\n"));
}

#[test]
fn where_hooks_are_given_no_input_a_message_wakes_the_session_all_the_same() {
    let scene = Scene::new();
    let hook = scene.claude.raw_hook("SessionStart", "", "");
    scene.once_reason_is(WAITING);
    let next = scene.claude.raw_hook("Stop", "", "");
    hook.left_silently();
    scene.once_reason_is(WAITING);
    let sent = scene.send("hello");
    assert!(next.woke().contains("\nhello\n"));
    scene.assert_delivered_by_hook(&sent["messageId"]);
    // Whether this is a subagent's nobody knows, nor whether the session goes on.
    scene.send("not for a subagent");
    scene.claude.raw_hook("PostToolUse", "", "").left_silently();
    scene.claude.raw_hook("SessionEnd", "", "").left_silently();
    assert_eq!(scene.peer()["status"], "connected");
    assert!(scene.claude.raw_hook("UserPromptSubmit", "", "").put_beside("UserPromptSubmit").contains("not for a subagent"));
}
