//! Hooks: real processes of `claude-peers hook`, started by a process that passes for Claude Code.

use crate::support::{
    Broker,
    broker::signal,
    events::Peer,
    eventually, folder,
    hooks::{Claude, Hook},
    http::Conversation,
    mcp::Start,
};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::net::UnixListener,
    path::Path,
    time::{Duration, Instant},
};

/// A broker, a directory, and one session in it.
struct Scene {
    broker: Broker,
    place: tempfile::TempDir,
    claude: Claude,
}

impl Scene {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(settings: &[(&str, &str)]) -> Self {
        let (broker, place) = (Broker::with(settings), folder());
        let claude = Claude::start(&broker, place.path(), "s-1");
        let scene = Self { broker, place, claude };
        eventually("the session is registered", || scene.peers().pop());
        scene
    }

    fn peers(&self) -> Vec<Value> {
        self.broker.http().get("/v1/peers?scope=machine").json()["peers"].as_array().unwrap().clone()
    }

    fn peer(&self) -> Value {
        let mut peers = self.peers();
        assert_eq!(peers.len(), 1, "{peers:?}");
        peers.remove(0)
    }

    fn once_reason_is(&self, reason: &str) {
        eventually(reason, || self.peers().iter().any(|peer| peer["deliveryReason"] == reason).then_some(()));
    }

    /// A hook that waits, and is known to wait.
    fn waiter(&self, event: &str) -> Hook {
        let hook = self.claude.hook(event, "s-1", json!({"source": "startup"}));
        self.once_reason_is(WAITING);
        hook
    }

    fn send(&self, text: &str) -> Value {
        let id = self.peers()[0]["id"].clone();
        self.broker.http().post("/v1/send", &json!({"to": id, "text": text})).json()
    }

    fn assert_delivered_by_hook(&self, id: &Value) {
        assert_eq!(self.broker.message_once("delivered", id)["route"], "hook");
    }
}

const WAITING: &str = "hook: waiter connected";
const BUSY: &str = "hook: busy, with its next tool call or when its turn ends";

fn gone(pid: u32) {
    eventually("the process is gone", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}

// --- the one that waits ---

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

// --- the short ones ---

#[test]
fn what_comes_in_a_turn_stands_beside_the_next_result_and_nothing_is_said_without_mail() {
    let scene = Scene::new();
    let hook = scene.waiter("SessionStart");
    scene.claude.hook("UserPromptSubmit", "s-1", json!({"prompt": "work"})).left_silently();
    scene.claude.hook("PostToolUse", "s-1", json!({"tool_name": "Bash"})).left_silently();
    let sent = [scene.send("first"), scene.send("second")];
    let subagent = json!({"tool_name": "Bash", "agent_id": "a1", "agent_type": "Explore"});
    scene.claude.hook("PostToolUse", "s-1", subagent).left_silently();
    let long = "x".repeat(1_000_000);
    scene.claude.hook("PostToolUse", "s-1", json!({"tool_response": &long, "agent_id": "a1"})).left_silently();
    // One that says more than can be parsed in time is as good as another.
    let result = json!({"tool_name": "Read", "tool_response": {"file": long}});
    let said = scene.claude.hook("PostToolUse", "s-1", result).put_beside("PostToolUse");
    let [first, second] = ["\nfirst\n", "\nsecond\n"].map(|text| said.find(text).unwrap_or_else(|| panic!("{text}: {said}")));
    assert!(first < second);
    sent.iter().for_each(|sent| scene.assert_delivered_by_hook(&sent["messageId"]));
    scene.claude.hook("PostToolUse", "s-1", json!({})).left_silently();
    assert!(hook.runs());
    // The turn ends: the next one waits, and nothing of it all comes again.
    let next = scene.waiter("Stop");
    hook.left_silently();
    scene.send("third");
    let said = next.woke();
    assert!(said.contains("\nthird\n") && !said.contains("first"), "{said}");
}

#[test]
fn a_tools_result_leaves_mail_to_the_hook_behind_it_as_a_subagent_may_have_called_the_tool() {
    let mut scene = Scene::new();
    let waiter = scene.waiter("SessionStart");
    scene.send("wake up");
    waiter.woke();
    scene.claude.hook("UserPromptSubmit", "s-1", json!({})).left_silently();
    let sent = scene.send("for the main conversation");
    for _ in 0..2 {
        let result = scene.claude.session.tool("list_peers", json!({"scope": "machine"}));
        assert_eq!((result.get("incomingMessages"), &result["self"]["waiting"]), (None, &json!(1)), "{result}");
        scene.claude.hook("PostToolUse", "s-1", json!({"agent_id": "a1"})).left_silently();
    }
    scene.claude.session.tool("list_peers", json!({"scope": "machine"}));
    let said = scene.claude.hook("PostToolUse", "s-1", json!({})).put_beside("PostToolUse");
    assert!(said.contains("for the main conversation"), "{said}");
    scene.assert_delivered_by_hook(&sent["messageId"]);
}

#[test]
fn a_session_whose_hooks_were_switched_off_gets_its_mail_with_the_results_of_tools_again() {
    let mut scene = Scene::new();
    scene.claude.hook("UserPromptSubmit", "s-1", json!({})).left_silently();
    let sent = scene.send("hello");
    // No hook follows these results.
    let result = eventually("a result carries the message", || {
        let result = scene.claude.session.tool("list_peers", json!({"scope": "machine"}));
        result.get("incomingMessages").is_some().then_some(result)
    });
    assert_eq!(result["incomingMessages"][0]["text"], "hello");
    assert!(result["notice"].as_str().unwrap().contains("not from the user"), "{result}");
    assert_eq!(scene.broker.message_once("delivered", &sent["messageId"])["route"], "tool_result");
    assert_eq!(scene.peer()["deliveryReason"], "pull: no hooks, no channel");
}

#[test]
fn a_call_that_waits_for_a_message_gets_it_and_the_waiter_does_not() {
    let mut scene = Scene::new();
    let hook = scene.waiter("SessionStart");
    let call = json!({"name": "check_messages", "arguments": {"waitSeconds": 60}});
    let call = scene.claude.session.ask("tools/call", call);
    scene.once_reason_is("pull: a call of its tools waits for messages");
    let sent = scene.send("for the call");
    let answer = scene.claude.session.answer(call);
    assert_eq!(answer["result"]["structuredContent"]["messages"][0]["text"], "for the call", "{answer}");
    assert_eq!(scene.broker.message_once("delivered", &sent["messageId"])["route"], "check_messages");
    assert!(hook.runs());
    scene.once_reason_is(WAITING);
    scene.send("for the waiter");
    assert!(hook.woke().contains("for the waiter"));
}

#[test]
fn a_turn_that_was_interrupted_keeps_mail_from_its_session_only_for_a_moment() {
    let scene = Scene::new();
    let hook = scene.waiter("SessionStart");
    scene.claude.hook("UserPromptSubmit", "s-1", json!({"prompt": "work"})).left_silently();
    let (begun, sent) = (Instant::now(), scene.send("are you there?"));
    // The client would keep what is said now until the turn's next result or end: it is not said yet.
    let said = hook.woke();
    assert!(said.contains("claude-peers") && !said.contains("are you there?"), "{said}");
    assert!(begun.elapsed() > Duration::from_secs(2), "the results of tools go first: {:?}", begun.elapsed());
    assert_eq!(scene.broker.message(&sent["messageId"])["state"], "queued");
    let said = scene.claude.hook("UserPromptSubmit", "s-1", json!({"prompt": said})).put_beside("UserPromptSubmit");
    assert!(said.contains("are you there?"), "{said}");
    scene.assert_delivered_by_hook(&sent["messageId"]);
}

#[test]
fn a_turn_begins_with_a_waiter_that_leaves_mail_to_the_other_hooks_of_the_turn() {
    let scene = Scene::new();
    let hook = scene.waiter("SessionStart");
    let next = scene.claude.hook("TurnStart", "s-1", json!({"hook_event_name": "UserPromptSubmit", "prompt": "work"}));
    hook.left_silently();
    scene.once_reason_is(WAITING);
    scene.send("hello");
    let said = scene.claude.hook("PostToolUse", "s-1", json!({})).put_beside("PostToolUse");
    assert!(said.contains("\nhello\n"), "{said}");
    // The turn is interrupted: nothing ends it, and no other hook begins to wait.
    scene.send("are you there?");
    next.woke();
    scene.claude.hook("UserPromptSubmit", "s-1", json!({"prompt": "woken"})).put_beside("UserPromptSubmit");
}

#[test]
fn a_session_that_is_woken_in_its_turn_is_shown_everything_in_order() {
    let scene = Scene::new();
    let hook = scene.waiter("SessionStart");
    scene.claude.hook("PostToolUse", "s-1", json!({"tool_name": "Bash"})).left_silently();
    scene.send("first");
    hook.woke();
    scene.send("second");
    let said = scene.claude.hook("PostToolUse", "s-1", json!({"tool_name": "Bash"})).put_beside("PostToolUse");
    assert!(said.find("\nfirst\n").unwrap() < said.find("\nsecond\n").unwrap(), "{said}");
    // With the turn's end the client makes a prompt of the wake-up, which is before anything that the next waiter says.
    let hook = scene.waiter("Stop");
    scene.send("third");
    let said = scene.claude.hook("UserPromptSubmit", "s-1", json!({"prompt": "woken"})).put_beside("UserPromptSubmit");
    assert!(said.contains("\nthird\n") && !said.contains("second"), "{said}");
    scene.waiter("Stop");
    hook.left_silently();
}

#[test]
fn a_hundred_messages_are_handed_over_in_order_in_a_few_turns() {
    let mut scene = Scene::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    let sent: Vec<_> = (0..100).map(|number| scene.send(&format!("number {number:03}"))["messageId"].clone()).collect();
    let mut said = String::new();
    let mut turns = 0;
    while said.matches("\nnumber ").count() < 100 {
        turns += 1;
        assert!(turns <= 4, "{said}");
        let words = scene.claude.hook("Stop", "s-1", json!({})).woke();
        assert!(words.chars().count() < 10_000);
        said += &words;
    }
    let places: Vec<_> = (0..100).map(|number| said.find(&format!("\nnumber {number:03}\n")).unwrap()).collect();
    assert!(places.is_sorted() && !said.contains("repeat"), "{said}");
    sent.iter().for_each(|id| scene.assert_delivered_by_hook(id));
    assert_eq!(scene.claude.session.check(), [] as [Value; 0]);
}

#[test]
fn a_long_text_is_announced_and_read_with_check_messages() {
    let mut scene = Scene::new();
    let hook = scene.waiter("Stop");
    let text = format!("{}the end", "long ".repeat(3_000));
    let sent = scene.send(&text);
    let said = hook.woke();
    assert!(said.contains("check_messages") && !said.contains("the end") && said.chars().count() < 2_000, "{said}");
    assert_eq!(scene.broker.message_once("offered", &sent["messageId"])["route"], "hook");
    scene.claude.hook("PostToolUse", "s-1", json!({})).left_silently();
    let messages = scene.claude.session.check();
    assert_eq!((&messages[0]["text"], messages[0].get("repeat")), (&json!(text), None));
    assert_eq!(scene.broker.message_once("delivered", &sent["messageId"])["route"], "check_messages");
}

// --- who a session is ---

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

// --- one route for a message ---

#[test]
fn a_session_with_a_waiter_and_a_channel_gets_a_message_by_the_hook_alone() {
    let (broker, place) = (Broker::start(), folder());
    let start = Start { broker: &broker, directory: place.path(), session_id: "s-1", delivery: "", env: Vec::new() };
    let flags = ["--dangerously-load-development-channels", "server:claude-peers"];
    let mut claude = Claude::launch(&start, &flags, "");
    claude.session.handshake();
    let mut scene = Scene { broker, place, claude };
    eventually("the session is registered", || scene.peers().pop());
    assert_eq!(scene.peer()["delivery"], "channel");
    let hook = scene.waiter("SessionStart");
    let sent = scene.send("hello");
    assert!(hook.woke().contains("\nhello\n"));
    scene.assert_delivered_by_hook(&sent["messageId"]);
    scene.send("and in the turn");
    let said = scene.claude.hook("PostToolUse", "s-1", json!({})).put_beside("PostToolUse");
    assert!(said.contains("and in the turn"), "{said}");
    assert_eq!(scene.claude.session.pushes_so_far(), [] as [Value; 0]);
    assert_eq!(scene.claude.session.check(), [] as [Value; 0]);
}

#[test]
fn the_users_choice_of_a_route_keeps_hooks_out() {
    let (broker, place) = (Broker::start(), folder());
    for (delivery, reason) in [
        ("pull", "pull: asked for by CLAUDE_PEERS_DELIVERY"),
        ("channel", "channel: asked for by CLAUDE_PEERS_DELIVERY, not confirmed yet"),
    ] {
        let start = Start { broker: &broker, directory: place.path(), session_id: delivery, delivery, env: Vec::new() };
        let mut claude = Claude::launch(&start, &[], "");
        claude.session.handshake();
        let id = claude.session.id();
        claude.hook("SessionStart", delivery, json!({})).left_silently();
        let sent = broker.http().post("/v1/send", &json!({"to": id, "text": "hello"})).json();
        claude.hook("PostToolUse", delivery, json!({})).left_silently();
        let me = claude.session.tool("list_peers", json!({"scope": "machine"}));
        assert_eq!(me["self"]["deliveryReason"], reason);
        broker.message_once("delivered", &sent["messageId"]);
    }
}

#[test]
fn a_hook_that_dies_half_way_leaves_its_messages_to_the_next_one_marked() {
    let mut broker = Broker::start();
    let peer = Peer::register(&broker.http(), "hooked", json!({}));
    let sent = broker.http().post("/v1/send", &json!({"to": peer.id, "text": "hello"})).json();
    let take = |lease: &str| json!({"lease": lease, "route": "hook"});
    let as_peer = peer.over(&broker.http());
    let mut hook = as_peer.converse();
    for _ in 0..2 {
        let answer = hook.ask("POST", "/v1/take", &take("half-way").to_string()).json();
        assert_eq!((&answer["messages"][0]["id"], answer["messages"][0].get("repeat")), (&sent["messageId"], None));
        assert_eq!(as_peer.post("/v1/take", &take("other")).json()["messages"], json!([]), "it is in the hands of that one");
    }
    drop(hook);
    let mut next = as_peer.converse();
    let marked = |hook: &mut Conversation, lease: &str| {
        let message = eventually("the message waits again", || {
            hook.ask("POST", "/v1/take", &take(lease).to_string()).json()["messages"].as_array().unwrap().first().cloned()
        });
        assert_eq!((&message["id"], &message["repeat"]), (&sent["messageId"], &json!(true)));
    };
    marked(&mut next, "next");

    // With the broker its connections go, and whoever had something in hand.
    broker.restart();
    let mut last = peer.again(&broker.http()).over(&broker.http()).converse();
    marked(&mut last, "last");
    let settle = json!({"route": "hook", "messages": [{"id": sent["messageId"], "outcome": "delivered"}]});
    assert_eq!(last.ask("POST", "/v1/settle", &settle.to_string()).json()["changed"], 1);
    drop(last);
    assert_eq!(broker.message(&sent["messageId"])["state"], "delivered");
}

// --- bad input, bad days ---

#[test]
fn what_a_hook_cannot_understand_is_said_to_nobody_but_the_log() {
    let scene = Scene::new();
    scene.send("hello");
    let good = r#"{"session_id": "s-1"}"#;
    for (event, input, variables, problem) in [
        ("PostToolUse", "{\"session_id\": ", "", "cannot be read"),
        ("Stop", "", "CLAUDE_CODE_SESSION_ID=", "no session"),
        ("Stop", " ", "", "cannot be read"),
        ("SessionEnd", "[1]", "", "cannot be read"),
        ("Sneeze", good, "", "Sneeze"),
        ("''", good, "", "is unknown"),
        ("PostToolUse", "{}", "", "no session"),
        ("Stop", r#"{"session_id": ""}"#, "", "no session"),
        ("PostToolUse", good, "CLAUDE_PID=", "CLAUDE_PID"),
        ("Stop", good, "CLAUDE_PID=claude", "CLAUDE_PID"),
    ] {
        let before = scene.broker.log().len();
        scene.claude.raw_hook(event, input, variables).left_silently();
        eventually(problem, || scene.broker.log()[before..].lines().any(|line| line.contains(problem)).then_some(()));
    }
    assert_eq!(scene.peer()["waiting"], 1);
}

#[test]
fn a_broker_that_is_away_or_hangs_holds_no_session_up() {
    let mut scene = Scene::new();
    let pid = scene.broker.pid();
    signal(pid, "STOP");
    let begun = Instant::now();
    for event in ["PostToolUse", "UserPromptSubmit", "SessionEnd", "Sneeze"] {
        scene.claude.hook(event, "s-1", json!({"reason": "other"})).left_silently();
    }
    // Generous for a busy machine; `benches` measures.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    signal(pid, "CONT");
    scene.broker.kill();
    for event in ["PostToolUse", "UserPromptSubmit", "SessionEnd"] {
        scene.claude.hook(event, "s-1", json!({})).left_silently();
    }
    let socket = scene.broker.socket();
    drop(fs::remove_file(&socket));
    let _full = UnixListener::bind(&socket).unwrap();
    for event in ["PostToolUse", "SessionEnd"] {
        scene.claude.hook(event, "s-1", json!({})).left_silently();
    }
}
