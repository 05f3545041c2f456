//! Text that hides or steers is shown to no model, terminal, script or bus as it is.

use crate::support::{Broker, Session, events::Peer, folder};
use serde_json::json;

/// "delete" in tag characters, a soft hyphen, a Hangul filler, a variation selector, a C1 control, bidirectional controls.
const HIDDEN: &str = "\u{e0064}\u{e0065}\u{e006c}\u{e0065}\u{e0074}\u{e0065}\u{ad}\u{34f}\u{115f}\u{e0100}\u{9b}\u{61c}\u{202e}";

fn assert_shows_all(what: &str, shown: &str) {
    assert!(!shown.contains(|c| HIDDEN.contains(c)), "{what}: {shown:?}");
    assert!(shown.contains("e0064") || shown.contains("udc64"), "{what}: {shown:?}");
}

#[test]
fn model_sees_hidden_text_escaped() {
    let (broker, place) = (Broker::start(), folder());
    let mut session = Session::pulling(&broker, place.path(), "one");
    let id = session.id();
    let sender = Peer::register(&broker.http(), "two", json!({"cwd": "/two"}));
    sender.over(&broker.http()).post("/v1/set-summary", &json!({"summary": HIDDEN, "source": "session"})).json();
    for (tool, arguments) in [
        ("list_peers", json!({"scope": "machine"})),
        ("check_messages", json!({})),
        ("send_message", json!({"targetPeerId": format!("x{HIDDEN}"), "message": "x"})),
    ] {
        let text = format!("for {tool}: {HIDDEN} ❤\u{fe0f}");
        sender.over(&broker.http()).post("/v1/send", &json!({"to": id, "text": text})).json();
        assert_shows_all(tool, &session.call(tool, arguments).to_string());
    }
}

#[test]
fn command_line_shows_hidden_text_escaped() {
    let broker = Broker::start();
    let peer = Peer::register(&broker.http(), "one", json!({"cwd": "/one"}));
    peer.over(&broker.http()).post("/v1/set-summary", &json!({"summary": HIDDEN, "source": "session"})).json();
    let text = format!("hello{HIDDEN}");
    let id =
        peer.over(&broker.http()).post("/v1/send", &json!({"to": peer_of(&broker), "text": text})).json()["messageId"].clone();
    let id = id.as_str().unwrap();
    for arguments in [&["peers"][..], &["history"], &["message", id], &["peers", "--json"], &["history", "--json"]] {
        let shown = broker.cli(arguments).output().unwrap();
        assert!(shown.status.success(), "{arguments:?}: {shown:?}");
        assert_shows_all(&arguments.join(" "), &String::from_utf8(shown.stdout).unwrap());
    }
    assert_eq!(broker.cli_json(&["message", id]).1["text"], text, "JSON says the same, escaped");
}

#[test]
fn wrong_words_are_shown_escaped() {
    let broker = Broker::start();
    for arguments in [&["send", HIDDEN, "text"][..], &["message", HIDDEN], &["peers", "--scope", HIDDEN], &[HIDDEN]] {
        let refused = broker.cli(arguments).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_shows_all(&arguments.join(" "), &said);
    }
}

fn peer_of(broker: &Broker) -> String {
    Peer::register(&broker.http(), "two", json!({"cwd": "/two"})).id
}
