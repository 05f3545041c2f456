//! The inbox socket of a session's client: Claude Code's documented door into a session.
//!
//! Each frame takes one connection: a line of JSON, then the end. The client never answers, so a written frame may still not be let
//! in. No message can end its fence or the frame's tag.
//!
//! A frame has the form of those that the client's own `SendMessage` tool writes: with the sender's name, and an address for an answer.

use crate::{
    agents::shown::{self, Shown},
    platform::{clock, random},
    wire::{Sender, text},
};
use serde_json::json;
use std::path::Path;

/// The tag around a frame's text.
const TAG: &str = "cross-session-message";

/// The permission mode that a frame names for its sender. The client holds a frame that names another class than its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Prompting,
    /// The sender bypasses permission prompts.
    Bypass,
    /// None, so the client lets the frame in.
    Unsaid,
}

/// The frame with these messages of one sender, oldest first: one line of JSON. `address` is the socket for an answer.
pub fn frame(messages: &[Shown], address: Option<&Path>, mode: Mode) -> String {
    let Some(Sender { name, .. }) = messages.first().map(|shown| &shown.message.from) else { return String::new() };
    let address = address.map(|address| format!("uds:{}", address.display()));
    let from = address.as_deref().map(|address| format!("from=\"{}\" ", text::attribute(address))).unwrap_or_default();
    // The client drops a text that it has just had from the same sender.
    let again = messages.iter().any(|shown| shown.message.repeat).then(|| format!("\n\n(written again at {})", clock::now()));
    let content = text::defused(&(shown::frame(messages) + &again.unwrap_or_default()), TAG);
    let mode = match mode {
        Mode::Prompting => " from-mode=\"prompting\"",
        Mode::Bypass => " from-mode=\"bypass\"",
        Mode::Unsaid => "",
    };
    let content = format!("<{TAG} {from}from-name=\"{}\"{mode}>\n{content}\n</{TAG}>", text::attribute(name));
    let mut frame = json!({
        "type": "user", "message": {"role": "user", "content": content}, "msgV": 1, "msg_id": random::uuid(), "priority": "next",
    });
    if let Some(address) = address {
        frame["from"] = address.into();
    }
    frame.to_string()
}

/// The text of an answer that a client's own tool wrote, without its tag; none if this is no such frame.
pub fn answer(frame: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Frame {
        message: Message,
    }
    #[derive(serde::Deserialize)]
    struct Message {
        content: String,
    }
    let content = serde_json::from_slice::<Frame>(frame).ok()?.message.content;
    let Some(inner) = content.trim().strip_prefix('<').and_then(|rest| rest.strip_prefix(TAG)) else {
        return Some(content).filter(|content| !content.trim().is_empty());
    };
    let (_, inner) = inner.split_once('>')?;
    let inner = inner.strip_suffix(&format!("</{TAG}>"))?.trim_matches('\n');
    (!inner.trim().is_empty()).then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_read_with_and_without_its_tag() {
        let frame = |content: &str| json!({"type": "user", "message": {"role": "user", "content": content}}).to_string();
        let tagged = "<cross-session-message from=\"uds:/a\" from-mode=\"prompting\">\nYes.\nIt is.\n</cross-session-message>";
        assert_eq!(answer(frame(tagged).as_bytes()).as_deref(), Some("Yes.\nIt is."));
        assert_eq!(answer(frame("Yes.").as_bytes()).as_deref(), Some("Yes."));
        for wrong in ["", "{}", "{\"type\":\"auth\",\"token\":\"x\"}", &frame("  "), &frame("<cross-session-message")] {
            assert_eq!(answer(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
