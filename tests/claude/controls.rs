//! The controls of the person at a session: what is held, and how they let it in.

use crate::{Test, model::Request, session::Claude, support::eventually, world::World};
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("controls::two_sessions_that_bypass_prompts_talk", equal),
    ("controls::what_the_person_denies_stays_held", denied),
    ("controls::what_the_person_delivers_is_shown_once", delivered),
    ("controls::a_held_message_is_released_beside_its_dialog", released),
    ("controls::a_denied_message_is_released_later", released_later),
    ("controls::a_session_that_bypasses_is_held_by_one_that_asks", other_way),
    ("controls::the_users_own_message_passes", own),
    ("controls::a_session_that_accepts_all_holds_nothing", accepts_all),
    ("controls::the_setting_accept_lets_all_in", accept),
    ("controls::the_setting_hold_holds_equal_senders_too", hold),
    ("controls::the_setting_refuse_writes_nothing", refuse),
];

/// What is said.
const TEXT: &str = "Is the parser done?";
/// The title of the client's dialog.
const DIALOG: &str = "Held message from another session";

/// A world in which sessions that bypass permission prompts start without a question.
fn world(claude: &Path) -> World {
    let world = World::hooked(claude);
    world.set("skipDangerousModePermissionPrompt", &json!(true));
    world
}

/// Waits for the client's dialog, and until its screen is at rest: the client draws the dialog anew, with its first choice, when it has
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

/// Presses the key that `key` names for the screen as it is, until it names none. Each key waits until the one before has changed the
/// screen; one that is lost is pressed again.
fn answer(session: &Claude, what: &str, key: impl Fn(&str) -> Option<&'static str>) {
    let mut pressed: Option<(String, Instant)> = None;
    eventually(what, || {
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

/// The person does what the dialog proposes first: they drop the message.
fn deny(session: &Claude) {
    dialog(session);
    answer(session, "the dialog is closed", |screen| screen.contains(DIALOG).then_some("Enter"));
}

/// The person has the message delivered.
fn deliver(session: &Claude) {
    dialog(session);
    answer(session, "the dialog is closed", |screen| match screen {
        screen if screen.contains("❯ Deliver") => Some("Enter"),
        screen if screen.contains(DIALOG) => Some("Down"),
        _ => None,
    });
}

/// Has the model send [`TEXT`] to bob, which is held; the message's id.
fn held(world: &World, ada: &Claude, reason: &str) -> Value {
    let sent = ada.send("bob", TEXT);
    assert_eq!(sent["state"], "held", "{sent}");
    assert!(sent["warning"].as_str().unwrap().contains(reason), "{sent}");
    world.broker().message_once("held", &sent["messageId"]);
    sent["messageId"].clone()
}

/// Has the model send [`TEXT`] to bob, which is let in.
fn passes(world: &World, ada: &Claude, bob: &Claude) {
    let sent = ada.send("bob", TEXT);
    assert_eq!((sent["state"] == "held", sent.get("held")), (false, None), "{sent}");
    bob.shown(TEXT);
    bob.idle();
    world.let_in(&sent["messageId"]);
    assert_eq!(bob.times_shown(TEXT), 1);
}

/// The state of a message that was seen nowhere, after bob's model was asked once more.
fn unseen(world: &World, bob: &Claude, id: &Value) {
    let (request, _) = bob.call("check_messages", json!({}));
    assert!(!request.text().contains(TEXT), "{}", request.text());
    assert_eq!(bob.times_shown(TEXT), 0);
    assert_eq!(world.broker().message(id)["state"], "held");
}

/// Lets it in from the command line.
fn release(world: &World, id: &Value) {
    let (code, said) = world.broker().cli_json(&["release", id.as_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
}

fn equal(claude: &Path) {
    let world = world(claude);
    let [ada, bob] = ["ada", "bob"].map(|name| Claude::bypassing(&world, name, &[]));
    bob.reached();
    passes(&world, &ada, &bob);
}

/// A session that asks for permission, and one that does not.
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
    bob.shown(TEXT);
    bob.idle();
    world.let_in(&id);
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
    // The client's dialog knows nothing of it: who answers it, too, has the message twice, and one says so.
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
    answer(&bob, "the dialog is closed", |screen| screen.contains(DIALOG).then_some("Escape"));
    unseen(&world, &bob, &id);
    release(&world, &id);
    bob.shown(TEXT);
    bob.idle();
    world.let_in(&id);
    assert_eq!(bob.times_shown(TEXT), 1);
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
    bob.shown(TEXT);
    bob.idle();
    world.let_in(&id);
    assert_eq!(bob.times_shown(TEXT), 1);
}

fn accepts_all(claude: &Path) {
    let world = world(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::bypassing(&world, "bob", &[("CLAUDE_PEERS_INBOUND", "accept")]));
    bob.reached();
    passes(&world, &ada, &bob);
}

fn accept(claude: &Path) {
    let world = world(claude);
    world.set("crossSessionInbound", &json!("accept"));
    let (ada, bob) = unequal(&world);
    passes(&world, &ada, &bob);
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
