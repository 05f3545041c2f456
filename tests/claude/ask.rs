//! A question from a shell that a real session answers.

use crate::{Test, model::Request, session::Claude, world::World};
use serde_json::json;
use std::path::Path;

pub const TESTS: &[(&str, Test)] = &[("ask::idle_session_answers_a_question_from_the_shell", answered)];

/// A message's sender and id, which the model reads below the text.
fn address(request: &Request, text: &str) -> (String, String) {
    let said = request.text();
    let below = &said[said.find(text).unwrap()..];
    let word_after = |start: &str| {
        let (_, rest) = below.split_once(start).unwrap_or_else(|| panic!("no {start:?} below {text:?}: {said}"));
        rest.split([' ', ',']).next().unwrap_or_default().to_owned()
    };
    (word_after("targetPeerId "), word_after("\nid "))
}

fn answered(claude: &Path) {
    const QUESTION: &str = "Is the parser done?";
    let world = World::hooked(claude);
    let bob = Claude::start(&world, "bob");
    bob.reached();
    let task = world.model.react("bob", QUESTION, "mcp__claude-peers__send_message", |request| {
        let (from, id) = address(request, QUESTION);
        json!({"targetPeerId": from, "message": "Since yesterday.", "replyTo": id})
    });
    let mut ask = world.broker().cli(&["ask", "bob", QUESTION]);
    let output = ask.output().unwrap();
    let (said, complained) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((said.as_str(), complained.as_str(), output.status.code()), ("Since yesterday.\n", "", Some(0)));
    let request = world.model.request("bob", "its answer is sent", |request| request.result(&task.calls[0]).is_some());
    assert_eq!(request.text().matches(QUESTION).count(), 1, "{}", request.text());
    bob.idle();
    assert_eq!(world.model.requests("bob").len(), 2, "it was woken once, and not by its own answer");
}
