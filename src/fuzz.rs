//! What must hold for any bytes at all. Compiled only by `cargo fuzz`; the targets in `fuzz/` call these functions.

use crate::{
    agents::{
        claude::{
            inbox::{self, Mode},
            prompt_hook::Input,
        },
        shown::Shown,
    },
    wire::{Inbound, MessageId, PeerId, PeerRef, Recipient, Sender, Timestamp, text},
};
use std::{
    fmt::{Debug, Display},
    str::FromStr,
};

pub use crate::{
    db::fuzz::{pages, salvage},
    serve::fuzz::http,
    session::fuzz::mcp,
};

/// An id is read back as it is written, and has one spelling.
pub fn ids(data: &[u8]) {
    fn check<T: FromStr + Display + PartialEq + Debug>(text: &str)
    where
        T::Err: Debug,
    {
        if let Ok(id) = text.parse::<T>() {
            assert_eq!(id.to_string(), text.trim(), "an id has one spelling");
            assert_eq!(id.to_string().parse::<T>().unwrap(), id);
        }
    }
    let given = String::from_utf8_lossy(data);
    check::<PeerId>(&given);
    check::<PeerRef>(&given);
    check::<MessageId>(&given);
    drop(given.parse::<Recipient>());
    let lenient = PeerId::lenient(&given);
    assert!(lenient.as_str() == given || lenient.as_str() == "unknown");
}

/// No text leaves the place where it is shown, and none hides.
pub fn text(data: &[u8]) {
    text::check(&String::from_utf8_lossy(data));
}

/// The hook reads any input without failing; from a prompt it keeps only ids.
pub fn hook(data: &[u8]) {
    let (input, problem) = Input::read(data);
    if problem.is_some() {
        assert_eq!(input, Input::default());
    }
}

/// A client's frame is read or left; a message's text never ends the tag of our own frame.
pub fn frame(data: &[u8]) {
    drop(inbox::answer(data));
    let given = String::from_utf8_lossy(data);
    let message = Inbound {
        id: MessageId::new(1, "abcdef").unwrap(),
        from: Sender {
            id: PeerId::lenient("sender"),
            name: given.to_string(),
            cwd: String::new(),
            summary: String::new(),
            container: None,
        },
        text: given.to_string(),
        sent_at: Timestamp::from_millis(0),
        reply_to: None,
        repeat: data.len().is_multiple_of(2),
    };
    let frame = inbox::frame(&[Shown::brief(message)], None, Mode::Prompting);
    assert!(!frame.contains('\n'), "a frame is one line");
    let frame: serde_json::Value = serde_json::from_str(&frame).unwrap();
    let content = frame["message"]["content"].as_str().unwrap();
    assert_eq!(content.matches("<cross-session-message").count(), 1, "{content}");
    assert!(content.find("</cross-session-message>").unwrap() + "</cross-session-message>".len() == content.len(), "{content}");
}
