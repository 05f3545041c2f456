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
/// What the line with a message's id begins with ([`crate::wire::text::id_line`]).
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
    fn fields_are_found_in_any_order() {
        let input = json!({
            "session_id": "s", "transcript_path": "/t", "cwd": "/src/é", "permission_mode": "plan", "more": [{"agent_id": 1}],
            "prompt": "📨 Message from peer k7xq2m (shop-api):\nid m12-abcdef · sent 2026-11-22T05:57:03Z\n```\nhello\n```",
        });
        let [session_id, cwd, permission_mode] = ["s", "/src/é", "plan"].map(|text| Some(text.to_owned()));
        let prompt = Some(Ids(vec!["m12-abcdef".parse().expect("an id")]));
        assert_eq!(read(&input.to_string()), (Input { session_id, cwd, permission_mode, agent_id: None, prompt }, None));
        let (input, _) = read(r#"{"agent_id": "a", "prompt": null, "cwd": null}"#);
        assert!(input.agent_id.is_some() && input.cwd.is_none() && input.prompt.is_none());
        assert!(read(r#"{"agent_id": null}"#).0.agent_id.is_none());
    }

    #[test]
    fn every_message_of_a_prompt_is_found() {
        let ids = |prompt: &str| -> Vec<String> { Ids::within(prompt.as_bytes()).0.iter().map(ToString::to_string).collect() };
        assert_eq!(ids("id m1-abc\nid m2-def · sent 1\r\ntext\nid m3-ghi\r\n"), ["m1-abc", "m2-def", "m3-ghi"]);
        for other in ["", "id", "id ", "id x", " id m1-abc", "the id m1-abc", "id m01-abc", "ID m1-abc", "idm1-abc"] {
            assert!(ids(other).is_empty(), "{other}");
        }
        assert_eq!(ids(&"id m1-abc\n".repeat(MOST + 1)).len(), MOST);
        let (input, problem) = read(r#"{"session_id": "s", "prompt": "\ud83d\nid m1-abc · sent"}"#);
        assert_eq!((input.prompt.expect("half an emoji hides none").0.len(), problem), (1, None));
    }

    #[test]
    fn a_wrong_input_is_read_to_its_end() {
        assert_eq!(read(""), (Input::default(), None));
        for broken in [" ", "{", "[]", "[]]", "{\"session_id\": 1}", "{\"prompt\": 1}", "{\"prompt\": [\"id m1-abc\"]}", "{} x"] {
            let (input, problem) = read(broken);
            assert!(problem.is_some_and(|problem| problem.contains("(line 1, ")) && input == Input::default(), "{broken}");
        }
        let of_length = |length: usize| {
            let rest = json!({"prompt": "id m1-abc\n"}).to_string().len();
            json!({"prompt": format!("id m1-abc\n{}", "x".repeat(length - rest))}).to_string()
        };
        let longest = LONGEST as usize;
        assert_eq!(read(&of_length(longest)).0.prompt.expect("a prompt").0.len(), 1);
        let too_long = Some("its input is longer than 256 KiB".to_owned());
        assert_eq!(
            [longest + 1, 3 * longest].map(|length| read(&of_length(length))),
            [(Input::default(), too_long.clone()), (Input::default(), too_long)]
        );
    }
}
