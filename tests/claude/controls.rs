//! Held messages, and how the user of a session approves, denies or releases them.

use crate::{Test, model::Request, session::Claude, support::eventually, world::World};
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};

pub const TESTS: &[(&str, Test)] = &[
    ("controls::sessions_that_both_bypass_prompts_talk", equal),
    ("controls::denied_message_stays_held", denied),
    ("controls::approved_message_is_shown_once", delivered),
    ("controls::message_can_be_released_while_its_dialog_shows", released),
    ("controls::denied_message_can_be_released_later", released_later),
    ("controls::bypassing_sender_is_held_by_prompting_session", other_way),
    ("controls::message_from_the_user_passes", own),
    ("controls::accepting_session_holds_nothing", accepts_all),
    ("controls::setting_accept_lets_all_in", accept),
    ("controls::setting_hold_holds_equal_senders_too", hold),
    ("controls::setting_refuse_writes_nothing", refuse),
];

/// The text of each message.
const TEXT: &str = "Is the parser done?";
/// The title of the client's dialog.
const DIALOG: &str = "Held message from another session";

/// A world in which sessions that bypass permission prompts start without a question.
fn world(claude: &Path) -> World {
    let world = World::hooked(claude);
    world.set("skipDangerousModePermissionPrompt", &json!(true));
    world
}

/// Waits for the client's dialog, and until the screen is at rest. The client draws the dialog anew, with its first choice, when it has
/// just started and when a turn ends.
fn dialog(session: &Claude) {
    let (mut last, mut since) = (String::new(), Instant::now());
    eventually("the dialog is open", || {
        let screen = session.screen();
        if screen != last {
            (last, since) = (screen, Instant::now());
        }
        (last.contains(DIALOG) && since.elapsed() > Duration::from_secs(1)).then_some(())
    });
}

/// Presses the key that `key` names for the screen as it is, until it names none. Each key waits until the one before has changed
/// the screen; a key that is lost is pressed again.
fn answer(session: &Claude, key: impl Fn(&str) -> Option<&'static str>) {
    let mut pressed: Option<(String, Instant)> = None;
    eventually("the dialog is closed", || {
        let screen = session.screen();
        let next = key(&screen);
        let waits = |(before, at): &(String, Instant)| *before == screen && at.elapsed() < Duration::from_secs(10);
        if let Some(key) = next.filter(|_| !pressed.as_ref().is_some_and(waits)) {
            session.keys(&[key]);
            pressed = Some((screen, Instant::now()));
        }
        next.is_none().then_some(())
    });
}

/// The user accepts the default of the dialog, which drops the message.
fn deny(session: &Claude) {
    dialog(session);
    answer(session, |screen| screen.contains(DIALOG).then_some("Enter"));
}

/// The user has the message delivered.
fn deliver(session: &Claude) {
    dialog(session);
    answer(session, |screen| match screen {
        screen if screen.contains("❯ Deliver") => Some("Enter"),
        screen if screen.contains(DIALOG) => Some("Down"),
        _ => None,
    });
}

/// Has ada's model send [`TEXT`] to bob and checks that it is held. Returns the message's id.
fn held(world: &World, ada: &Claude, reason: &str) -> Value {
    let sent = ada.send("bob", TEXT);
    assert_eq!(sent["state"], "held", "{sent}");
    assert!(sent["warning"].as_str().unwrap().contains(reason), "{sent}");
    world.broker().message_once("held", &sent["messageId"]);
    sent["messageId"].clone()
}

/// Has ada's model send [`TEXT`] to bob and checks that it is let in.
fn passes(ada: &Claude, bob: &Claude) {
    let sent = ada.send("bob", TEXT);
    assert_eq!((sent["state"] == "held", sent.get("held")), (false, None), "{sent}");
    bob.lets_in(&sent["messageId"], TEXT);
}

/// Checks that a message is still held and was never shown to bob's model.
fn unseen(world: &World, bob: &Claude, id: &Value) {
    let (request, _) = bob.call("check_messages", json!({}));
    assert!(!request.text().contains(TEXT), "{}", request.text());
    assert_eq!(bob.times_shown(TEXT), 0);
    assert_eq!(world.broker().message(id)["state"], "held");
}

/// Releases a message from the command line.
fn release(world: &World, id: &Value) {
    let (code, said) = world.broker().cli_json(&["release", id.as_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
}

fn equal(claude: &Path) {
    let world = world(claude);
    let [ada, bob] = ["ada", "bob"].map(|name| Claude::bypassing(&world, name, &[]));
    bob.reached();
    passes(&ada, &bob);
}

/// A session that asks for permission, and one that bypasses permission prompts.
fn unequal(world: &World) -> (Claude<'_>, Claude<'_>) {
    let (ada, bob) = (Claude::start(world, "ada"), Claude::bypassing(world, "bob", &[]));
    bob.reached();
    (ada, bob)
}

const UNEQUAL: &str = "bypasses permission prompts";

fn denied(claude: &Path) {
    let world = world(claude);
    let (ada, bob) = unequal(&world);
    let id = held(&world, &ada, UNEQUAL);
    dialog(&bob);
    let screen = bob.screen();
    assert!(screen.contains(TEXT) && screen.contains("ada"), "the person sees what is asked, and by whom: {screen}");
    deny(&bob);
    unseen(&world, &bob, &id);
}

fn delivered(claude: &Path) {
    let world = world(claude);
    let (ada, bob) = unequal(&world);
    let id = held(&world, &ada, UNEQUAL);
    deliver(&bob);
    bob.lets_in(&id, TEXT);
    bob.call("check_messages", json!({}));
    assert_eq!(bob.times_shown(TEXT), 1);
}

fn released(claude: &Path) {
    let world = world(claude);
    let (ada, bob) = unequal(&world);
    let id = held(&world, &ada, UNEQUAL);
    dialog(&bob);
    release(&world, &id);
    assert!(bob.shown(TEXT).news().contains("possible repeat"));
    world.let_in(&id);
    eventually("the turn is over", || bob.screen().contains("● OK.").then_some(()));
    // The client's dialog stays open. Approving it shows the message again, and one of the two is marked as a repeat.
    deliver(&bob);
    let again = |request: &Request| request.text().matches(TEXT).count() == 2;
    let request = world.model.request("bob", "it again", again);
    assert_eq!(request.text().matches("possible repeat").count(), 1, "{}", request.text());
    bob.idle();
    assert_eq!(world.broker().message(&id)["state"], "delivered");
}

fn released_later(claude: &Path) {
    let world = world(claude);
    let (ada, bob) = unequal(&world);
    let id = held(&world, &ada, UNEQUAL);
    dialog(&bob);
    answer(&bob, |screen| screen.contains(DIALOG).then_some("Escape"));
    unseen(&world, &bob, &id);
    release(&world, &id);
    bob.lets_in(&id, TEXT);
}

fn other_way(claude: &Path) {
    let world = world(claude);
    let (ada, bob) = (Claude::bypassing(&world, "ada", &[]), Claude::start(&world, "bob"));
    bob.reached();
    let id = held(&world, &ada, UNEQUAL);
    deny(&bob);
    unseen(&world, &bob, &id);
}

fn own(claude: &Path) {
    let world = world(claude);
    let bob = Claude::bypassing(&world, "bob", &[]);
    bob.reached();
    let id = world.send("bob", TEXT);
    bob.lets_in(&id, TEXT);
}

fn accepts_all(claude: &Path) {
    let world = world(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::bypassing(&world, "bob", &[("CLAUDE_PEERS_INBOUND", "accept")]));
    bob.reached();
    passes(&ada, &bob);
}

fn accept(claude: &Path) {
    let world = world(claude);
    world.set("crossSessionInbound", &json!("accept"));
    let (ada, bob) = unequal(&world);
    passes(&ada, &bob);
}

fn hold(claude: &Path) {
    let world = world(claude);
    world.set("crossSessionInbound", &json!("hold"));
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    let id = held(&world, &ada, "crossSessionInbound");
    eventually("the client says that it holds it", || bob.screen().contains("Held peer message").then_some(()));
    unseen(&world, &bob, &id);
    release(&world, &id);
    let (request, _) = bob.call("list_peers", json!({"scope": "machine"}));
    assert_eq!(request.text().matches(TEXT).count(), 1, "{}", request.text());
    assert_eq!(world.broker().message_once("delivered", &id)["route"], "tool_result");
}

fn refuse(claude: &Path) {
    let world = world(claude);
    world.set("crossSessionInbound", &json!("refuse"));
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    let id = held(&world, &ada, "crossSessionInbound");
    unseen(&world, &bob, &id);
    assert_eq!(world.broker().message(&id).get("offeredAt"), None, "it was written nowhere");
    release(&world, &id);
    let (request, _) = bob.call("list_peers", json!({"scope": "machine"}));
    assert_eq!(request.text().matches(TEXT).count(), 1, "{}", request.text());
    assert_eq!(world.broker().message_once("delivered", &id)["route"], "tool_result");
}
