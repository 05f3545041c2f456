//! What Claude Code tells the hook on standard input. It is read in passing: of the prompt only the ids of our messages are kept.

use crate::wire::MessageId;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, Visitor},
};
use std::{
    fmt,
    io::{self, BufReader, Read},
};

/// The longest input that is parsed, in bytes: more would take more time than the hook has.
const LONGEST: u64 = 256 * 1024;
/// What the line with a message's id begins with ([`crate::wire::text::id_line`]).
const MARK: &[u8] = b"id ";
/// Most ids that are told to the broker.
const MOST: usize = 1_000;

/// What the hook needs of its input.
#[derive(Debug, Default, PartialEq, Deserialize)]
pub struct Input {
    /// The session's id.
    pub session_id: Option<String>,
    /// The session's folder.
    pub cwd: Option<String>,
    /// What the session may do unasked.
    pub permission_mode: Option<String>,
    /// There in a subagent only.
    pub agent_id: Option<IgnoredAny>,
    /// The messages that the prompt holds.
    pub prompt: Option<Ids>,
}

/// Why nothing of an input is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// There was none. Some versions of Claude Code give asynchronous hooks none on some systems.
    Empty,
    /// It was longer than what is parsed.
    Long,
    /// It is not what it should be, from this line and column on.
    Broken(usize, usize),
}

impl Unread {
    /// What a person should know about it. What the input holds is not repeated.
    pub fn problem(self) -> Option<String> {
        match self {
            Self::Empty => None,
            Self::Long => Some(format!("its input is longer than {} KiB", LONGEST / 1024)),
            Self::Broken(line, column) => Some(format!("its input cannot be understood (line {line}, column {column})")),
        }
    }
}

impl Input {
    /// Reads all of it, to the end: whoever writes it must find a reader.
    pub fn read(from: impl Read) -> (Self, Option<Unread>) {
        let mut from = BufReader::with_capacity(16 * 1024, from);
        let mut limited = from.by_ref().take(LONGEST);
        let read = serde_json::from_reader(&mut limited);
        let left = limited.limit();
        let _ = io::copy(&mut from, &mut io::sink()); // an input that breaks off has an end as well
        match read {
            Ok(input) => (input, None),
            Err(_) if left == 0 => (Self::default(), Some(Unread::Long)),
            Err(_) if left == LONGEST => (Self::default(), Some(Unread::Empty)),
            Err(error) => (Self::default(), Some(Unread::Broken(error.line(), error.column()))),
        }
    }
}

/// The ids of our messages in a text.
#[derive(Debug, PartialEq, Eq)]
pub struct Ids(pub Vec<MessageId>);

impl Ids {
    fn within(text: &[u8]) -> Self {
        let ids = text.split(|byte| *byte == b'\n').filter_map(|line| {
            let id = line.strip_prefix(MARK)?.split(u8::is_ascii_whitespace).next()?;
            std::str::from_utf8(id).ok()?.parse().ok()
        });
        Self(ids.take(MOST).collect())
    }
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Prompt;
        impl<'de> Visitor<'de> for Prompt {
            type Value = Ids;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<Ids, E> {
                Ok(Ids::within(text))
            }
        }
        // As bytes: half an emoji, which may stand in a prompt, is no text.
        deserializer.deserialize_bytes(Prompt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(input: &str) -> (Input, Option<Unread>) {
        let mut from = input.as_bytes();
        let read = Input::read(&mut from);
        assert!(from.is_empty(), "read to its end");
        read
    }

    fn ids(prompt: &str) -> Vec<String> {
        let (input, unread) = read(&json!({ "prompt": prompt }).to_string());
        assert_eq!(unread, None);
        input.prompt.expect("a prompt").0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_needed_is_found_wherever_it_stands() {
        let input = json!({
            "session_id": "s", "transcript_path": "/t", "cwd": "/src/é", "permission_mode": "plan", "more": [{"agent_id": 1}],
            "prompt": "📨 Message from peer k7xq2m (shop-api):\nid m12-abcdef · sent 2026-11-22T05:57:03Z\n```\nhello\n```",
        });
        let (input, unread) = read(&input.to_string());
        assert_eq!((input.session_id.as_deref(), input.cwd.as_deref()), (Some("s"), Some("/src/é")));
        assert_eq!((input.permission_mode.as_deref(), input.agent_id, unread), (Some("plan"), None, None));
        assert_eq!(input.prompt, Some(Ids(vec!["m12-abcdef".parse().expect("an id")])));
        let (input, _) = read(r#"{"agent_id": "a", "prompt": null, "cwd": null}"#);
        assert!(input.agent_id.is_some() && input.cwd.is_none() && input.prompt.is_none());
        assert!(read(r#"{"agent_id": null}"#).0.agent_id.is_none());
    }

    #[test]
    fn every_message_of_a_prompt_is_found() {
        assert_eq!(ids("id m1-abc\nid m2-def · sent 1\r\ntext\nid m3-ghi\r\n"), ["m1-abc", "m2-def", "m3-ghi"]);
        for other in ["", "id", "id ", "id x", " id m1-abc", "the id m1-abc", "id m01-abc", "ID m1-abc", "idm1-abc"] {
            assert!(ids(other).is_empty(), "{other}");
        }
        assert_eq!(ids(&"id m1-abc\n".repeat(MOST + 1)).len(), MOST);
    }

    #[test]
    fn half_an_emoji_hides_no_message() {
        let (input, unread) = read(r#"{"session_id": "s", "prompt": "\ud83d\nid m1-abc · sent"}"#);
        assert_eq!((input.prompt.expect("a prompt").0.len(), input.session_id.as_deref(), unread), (1, Some("s"), None));
    }

    #[test]
    fn what_is_no_input_is_read_to_its_end() {
        assert_eq!(read("").1, Some(Unread::Empty));
        for broken in [" ", "{", "[]", "[]]", "{\"session_id\": 1}", "{\"prompt\": 1}", "{\"prompt\": [\"id m1-abc\"]}", "{} x"] {
            let (input, unread) = read(broken);
            assert!(matches!(unread, Some(Unread::Broken(..))) && input == Input::default(), "{broken}: {unread:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_read_to_its_end_and_not_parsed() {
        let of_length = |length: usize| {
            let rest = json!({"session_id": "s", "prompt": "id m1-abc\n"}).to_string().len();
            json!({"session_id": "s", "prompt": format!("id m1-abc\n{}", "x".repeat(length - rest))}).to_string()
        };
        let longest = LONGEST as usize;
        assert_eq!(read(&of_length(longest)).0.prompt.expect("a prompt").0.len(), 1);
        for long in [longest + 1, 3 * longest] {
            assert_eq!(read(&of_length(long)), (Input::default(), Some(Unread::Long)));
        }
    }
}
