//! Answers that the model sends with its client's own tool.

use super::Scene;
use crate::support::{agent::Frame, eventually};
use serde_json::json;
use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    os::unix::net::UnixStream,
};

/// The frame that the client's tool writes.
fn answer(frame: &Frame, text: &str) -> String {
    let content =
        format!("<cross-session-message from=\"uds:/tmp/x\" from-mode=\"prompting\">\n{text}\n</cross-session-message>");
    let address = frame.json["from"].as_str().unwrap();
    json!({"type": "user", "message": {"role": "user", "content": content}, "msgV": 1, "from": address}).to_string() + "\n"
}

/// A shell command that writes its input into the socket and waits until it is closed.
fn writer(frame: &Frame) -> String {
    let path = frame.address();
    format!(
        "perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new($ARGV[0]) or die \"no socket: $!\"; print $s <STDIN>; $s->flush; \
         shutdown $s, 1; <$s>' '{}'",
        path.display()
    )
}

#[test]
fn text_to_a_frame_address_is_a_reply() {
    let mut scene = Scene::new();
    let id = scene.send("Is it done?");
    let frame = scene.bob.frame();
    assert_eq!(fs::metadata(frame.address()).unwrap().permissions().mode() & 0o777, 0o600);
    scene.once(&id, "offered");
    scene.bob.run(&writer(&frame), &answer(&frame, "Yes.\nIt is."));
    let reply = eventually("the reply", || scene.ada.check().pop());
    assert_eq!((&reply["text"], &reply["replyTo"], &reply["from"]["name"]), (&json!("Yes.\nIt is."), &json!(id), &json!("bob")));
    scene.once(&id, "delivered");
    let said = "through the client's own tool went to";
    eventually("its log says so", || scene.bob.session.log().contains(said).then_some(()));
}

#[test]
fn only_the_session_can_use_its_address() {
    let mut scene = Scene::new();
    scene.send("Is it done?");
    let frame = scene.bob.frame();
    let mut stream = UnixStream::connect(frame.address()).unwrap();
    drop(stream.write_all(answer(&frame, "No!").as_bytes())); // it may be closed by then
    let mut said = String::new();
    drop(stream.read_to_string(&mut said)); // until it is closed
    eventually("it is refused", || scene.bob.session.log().contains("not from this session's client").then_some(()));
    for wrong in ["", "{}\n", "not JSON\n"] {
        scene.bob.run(&writer(&frame), wrong);
    }
    eventually("they hold nothing", || (scene.bob.session.log().matches("holds no message").count() == 3).then_some(()));
    assert!(scene.ada.check().is_empty());
}
