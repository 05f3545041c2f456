//! The hook's input from Claude Code, on standard input. Only the ids of our messages are kept of the prompt.

use crate::wire::MessageId;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, Visitor},
};
use std::{
    fmt,
    io::{self, BufReader, Read},
};

/// The longest input that is parsed, in bytes: the hook has no time for more.
const LONGEST: u64 = 256 * 1024;
/// The line with a message's id begins so ([`crate::wire::text::id_line`]).
const MARK: &[u8] = b"id ";
/// Most ids that the broker is told.
const MOST: usize = 1_000;

#[derive(Debug, Default, PartialEq, Deserialize)]
pub struct Input {
    pub session_id: Option<String>,
    /// The session's folder.
    pub cwd: Option<String>,
    pub permission_mode: Option<String>,
    /// Only in a subagent.
    pub agent_id: Option<IgnoredAny>,
    /// The messages in the prompt.
    pub prompt: Option<Ids>,
}

impl Input {
    /// Reads to the end, because Claude Code must find a reader. Gives what is wrong with the input, too, without repeating any of
    /// it; nothing is wrong with an empty one, which some versions of Claude Code give asynchronous hooks on some systems.
    pub fn read(from: impl Read) -> (Self, Option<String>) {
        let mut from = BufReader::with_capacity(16 * 1024, from);
        let mut limited = from.by_ref().take(LONGEST);
        let read = serde_json::from_reader(&mut limited);
        let left = limited.limit();
        let _ = io::copy(&mut from, &mut io::sink()); // an error ends the input as well
        match read {
            Ok(input) => (input, None),
            Err(_) if left == LONGEST => (Self::default(), None),
            Err(_) if left == 0 => (Self::default(), Some(format!("its input is longer than {} KiB", LONGEST / 1024))),
            Err(error) => {
                let place = format!("line {}, column {}", error.line(), error.column());
                (Self::default(), Some(format!("its input cannot be understood ({place})")))
            }
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
        // As bytes: a prompt may have half an emoji, which is no text.
        deserializer.deserialize_bytes(Prompt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(input: &str) -> (Input, Option<String>) {
        let mut from = input.as_bytes();
        let read = Input::read(&mut from);
        assert!(from.is_empty(), "read to its end");
        read
    }

    #[test]
    fn ids_are_found_at_starts_of_lines() {
        let many = "id m1-abc\n".repeat(MOST + 1);
        for (prompt, count) in [
            ("id m1-abc\nid m2-def · sent 1\r\ntext\nid m3-ghi\r\n", 3),
            ("id", 0),
            ("id \nid x\n id m1-abc\nthe id m1-abc\nid m01-abc\nID m1-abc\nidm1-abc", 0),
            (&many, MOST),
        ] {
            let (input, problem) = read(&json!({"agent_id": null, "cwd": "/é", "prompt": prompt}).to_string());
            assert!(problem.is_none() && input.agent_id.is_none() && input.cwd.as_deref() == Some("/é"), "{prompt}");
            assert_eq!(input.prompt.expect("a prompt").0.len(), count, "{prompt}");
        }
        let (input, problem) = read(r#"{"agent_id": "a", "prompt": "\ud83d\nid m1-abc · sent"}"#);
        assert!(input.agent_id.is_some() && problem.is_none());
        assert_eq!(input.prompt.expect("half an emoji hides none").0.len(), 1);
    }

    #[test]
    fn a_wrong_input_is_read_to_its_end() {
        assert_eq!(read(""), (Input::default(), None));
        for broken in [" ", "{", "[]", "[]]", "{\"session_id\": 1}", "{\"prompt\": 1}", "{\"prompt\": [\"id m1-abc\"]}", "{} x"] {
            let (input, problem) = read(broken);
            assert!(problem.is_some_and(|problem| problem.contains("(line 1, ")) && input == Input::default(), "{broken}");
        }
        let longest = LONGEST as usize;
        for (length, problem) in [(longest, None), (longest + 1, Some("its input is longer than 256 KiB".to_owned()))] {
            let input = json!({"prompt": "x".repeat(length - json!({"prompt": ""}).to_string().len())}).to_string();
            assert_eq!(read(&input).1, problem);
        }
    }
}
