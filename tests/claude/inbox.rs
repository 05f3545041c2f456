//! Messages that come in through the inbox of a real session: idle, busy, planning, interrupted or killed.

use crate::{
    Test,
    session::Claude,
    support::{broker::signal, eventually},
    world::World,
};
use serde_json::json;
use std::path::Path;

pub const TESTS: &[(&str, Test)] = &[
    ("inbox::idle_session_is_woken_and_hook_proves_it", woken),
    ("inbox::messages_during_a_tool_keep_their_order", beside),
    ("inbox::reply_proves_delivery_without_the_hook", unhooked),
    ("inbox::message_waits_behind_a_permission_dialog", asked),
    ("inbox::turn_begun_by_a_message_can_be_interrupted", interrupted),
    ("inbox::planning_session_is_reached", planning),
    ("inbox::killed_broker_still_hears_the_proof", broker_killed),
    ("inbox::stalled_broker_hears_the_hook_afterwards", broker_stalls),
    ("inbox::killed_session_gets_an_unproved_message_again", session_killed),
    ("inbox::sessions_in_one_directory_get_their_own_mail", three),
    ("inbox::answer_with_the_client_tool_is_a_reply", own_tool),
];

fn woken(claude: &Path) {
    let world = World::hooked(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    bob.reached();
    for text in ["Is the parser done?", "And the lexer?"] {
        let sent = ada.send("bob", text);
        bob.lets_in(&sent["messageId"], text);
    }
    // The user sees the sender and the text.
    let screen = bob.screen();
    assert!(screen.contains("Message from @ada: > Is the parser done?"), "{screen}");
    assert!(bob.peer().unwrap()["deliveryReason"].as_str().unwrap().contains("its hook confirms"), "{:?}", bob.peer());
    // The only process of ours for an idle session is its MCP server.
    let ours = world.processes().into_iter().filter(|process| process.contains("claude-peers")).count();
    assert_eq!(ours, 2, "{:?}", world.processes());
}

fn beside(claude: &Path) {
    let world = World::hooked(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    let mark = bob.directory().join("go-on");
    let wait = format!("while [ ! -e '{}' ]; do sleep 0.05; done", mark.display());
    let task = world.model.plan("bob", &[("Bash", json!({"command": wait, "description": "wait"}))]);
    bob.prompt(&task.cue);
    eventually("the tool runs", || bob.status().filter(|status| status["status"] == "busy"));
    let sent = ["Stop: the schema changed.", "And so did the parser."].map(|text| ada.send("bob", text)["messageId"].clone());
    std::fs::write(mark, "").unwrap();
    let last = "And so did the parser.";
    let request = world.model.request("bob", "both", |request| request.text().contains(last));
    let text = request.text();
    let places = ["Stop: the schema changed.", last].map(|text_of| text.find(text_of));
    assert!(places[0].is_some() && places.is_sorted(), "{text}");
    bob.idle();
    for (id, text) in sent.iter().zip(["Stop: the schema changed.", last]) {
        world.let_in(id);
        assert_eq!(world.model.requests("bob").pop().unwrap().text().matches(text).count(), 1);
    }
}

fn unhooked(claude: &Path) {
    let world = World::new(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    bob.reached();
    let sent = ada.send("bob", "Is the parser done?");
    bob.shown("Is the parser done?");
    bob.idle();
    assert_eq!(world.broker().message(&sent["messageId"])["state"], "offered", "nothing has proved it");
    let reply = json!({"targetPeerId": "ada", "message": "Yes.", "replyTo": sent["messageId"]});
    bob.call("send_message", reply);
    assert_eq!(world.broker().message_once("delivered", &sent["messageId"])["route"], "reply");
    ada.shown("> Yes.");
    ada.idle();
    // The inbox is proved now, so later messages are not repeated.
    ada.send("bob", "And the lexer?");
    bob.shown("And the lexer?");
    bob.idle();
    let (request, _) = bob.call("check_messages", json!({}));
    for text in ["Is the parser done?", "And the lexer?"] {
        assert_eq!(request.text().matches(text).count(), 1, "{}", request.text());
    }
}

fn asked(claude: &Path) {
    let world = World::hooked(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    let does = |doing: &str| {
        eventually(&format!("bob is shown as {doing}"), || {
            let peers = world.broker().peers();
            let activity = &peers.iter().find(|peer| peer["name"] == "bob")?["activity"];
            (activity["doing"] == doing && activity["since"].is_string()).then(|| activity.clone())
        })
    };
    bob.reached();
    does("idle");
    let task = world.model.plan("bob", &[("Bash", json!({"command": "touch made", "description": "make a file"}))]);
    bob.prompt(&task.cue);
    eventually("the dialog is open", || bob.screen().contains("Do you want to proceed?").then_some(()));
    assert!(does("needs_you")["needs"].is_string());
    let sent = ada.send("bob", "Stop: the schema changed.");
    let state = world.broker().message_once("offered", &sent["messageId"]);
    assert_eq!(state["route"], "inbox");
    bob.keys(&["Enter"]);
    bob.lets_in(&sent["messageId"], "Stop: the schema changed.");
    does("idle");
}

fn interrupted(claude: &Path) {
    let world = World::hooked(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    bob.reached();
    world.model.hold("Is the parser done?");
    let first = ada.send("bob", "Is the parser done?");
    bob.shown("Is the parser done?");
    bob.keys(&["Escape"]);
    bob.idle();
    world.let_in(&first["messageId"]);
    world.model.release("Is the parser done?");
    let second = ada.send("bob", "And the lexer?");
    bob.lets_in(&second["messageId"], "And the lexer?");
}

fn planning(claude: &Path) {
    let world = World::hooked(claude);
    let ada = Claude::start(&world, "ada");
    let bob = Claude::with(&world, "bob", &["--permission-mode", "plan"]);
    let sent = ada.send("bob", "Is the parser done?");
    bob.lets_in(&sent["messageId"], "Is the parser done?");
}

fn broker_killed(claude: &Path) {
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    let (sent, cue) = bob.offered_in_a_turn("Stop: the schema changed.");
    world.broker().kill();
    world.broker().launch();
    bob.reached();
    world.model.release(&cue);
    bob.lets_in(&sent, "Stop: the schema changed.");
}

/// The hook exits before the broker can answer, and its report still counts.
fn broker_stalls(claude: &Path) {
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    let (sent, cue) = bob.offered_in_a_turn("Stop: the schema changed.");
    let broker = world.broker().pid();
    signal(broker, "STOP");
    world.model.release(&cue);
    bob.shown("Stop: the schema changed.");
    bob.idle();
    let hooks = || world.processes().iter().filter(|process| process.contains("hook UserPromptSubmit")).count();
    eventually("its hook has ended", || (hooks() == 0).then_some(()));
    signal(broker, "CONT");
    world.let_in(&sent);
    bob.call("check_messages", json!({}));
    assert_eq!(bob.times_shown("Stop: the schema changed."), 1);
}

fn session_killed(claude: &Path) {
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    let id = bob.id();
    bob.call("list_peers", json!({"scope": "machine"}));
    // Only a conversation on disk can be resumed.
    eventually("the conversation is on disk", || world.transcript(&id).filter(|text| text.contains("tool_result")));
    let (sent, cue) = bob.offered_in_a_turn("Stop: the schema changed.");
    bob.kill("KILL");
    world.model.release(&cue);
    let bob = Claude::with(&world, "bob", &["--resume", &id]);
    let request = world.model.request("bob", "the message", |request| request.news().contains("Stop: the schema changed."));
    assert!(request.news().contains("possible repeat"), "{}", request.news());
    bob.idle();
    world.let_in(&sent);
}

fn three(claude: &Path) {
    let world = World::hooked(claude);
    let sessions = ["ada", "bob", "eve"].map(|name| Claude::beside(&world, name, "work", &[]));
    let texts = ["This is for the first.", "This is for the second.", "This is for the third."];
    let ids = sessions.each_ref().map(|session| session.reached()["id"].as_str().unwrap().to_owned());
    let sent: Vec<_> = ids.iter().zip(texts).map(|(id, text)| world.send(id, text)).collect();
    for ((session, own), sent) in sessions.iter().zip(texts).zip(sent) {
        session.shown(own);
        session.idle();
        world.let_in(&sent);
        assert_eq!(texts.map(|text| session.times_shown(text)), texts.map(|text| usize::from(text == own)));
    }
}

fn own_tool(claude: &Path) {
    const QUESTION: &str = "Is the parser done?";
    let world = World::hooked(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    bob.reached();
    let task = world.model.react("bob", QUESTION, "SendMessage", |request| {
        let text = request.text();
        let address = text.split("from=\"").nth(1).unwrap().split('"').next().unwrap();
        json!({"to": address, "message": "Since yesterday.", "summary": "an answer"})
    });
    let sent = ada.send("bob", QUESTION);
    let request = world.model.request("bob", "the tool's result", |request| request.result(&task.calls[0]).is_some());
    eprintln!("SendMessage says: {}", request.result(&task.calls[0]).unwrap());
    let reply = ada.shown("> Since yesterday.");
    assert!(reply.text().contains(&format!("answers {}", sent["messageId"].as_str().unwrap())), "{}", reply.text());
    bob.idle();
    ada.idle();
}
