//! What Claude Code tells a hook on standard input. It may hold all that a tool has given back: it is read in passing, and only
//! what a hook needs is kept.

use serde::{Deserialize, de::IgnoredAny};
use std::io::{self, BufReader, Read};

/// The longest input that is read for what it says, in bytes: reading more would take more time than a hook has.
const LONGEST: u64 = 128 * 1024;

/// What a hook needs of its input.
#[derive(Debug, Default, Deserialize)]
pub struct Input {
    /// The session's id.
    pub session_id: Option<String>,
    /// There in a subagent only.
    pub agent_id: Option<IgnoredAny>,
    /// Why a session begins.
    pub source: Option<String>,
    /// Why a session ends.
    pub reason: Option<String>,
}

/// Why the input says nothing.
#[derive(Debug)]
pub enum Unreadable {
    /// It is longer than is read.
    TooLong,
    /// It is not what it should be.
    Broken(String),
}

impl Input {
    /// Reads all of it, to the end: whoever writes it is not to find nobody there.
    pub fn read(from: impl Read) -> Result<Self, Unreadable> {
        let mut from = BufReader::with_capacity(16 * 1024, from);
        let mut limited = from.by_ref().take(LONGEST);
        let read = serde_json::from_reader(&mut limited);
        let is_long = limited.limit() == 0;
        let rest = io::copy(&mut from, &mut io::sink());
        match (read, rest) {
            (Ok(input), _) => Ok(input),
            (Err(_), _) if is_long => Err(Unreadable::TooLong),
            (Err(error), Ok(_)) => Err(Unreadable::Broken(error.to_string())),
            (Err(_), Err(error)) => Err(Unreadable::Broken(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_found_wherever_it_stands() {
        let long = format!(r#"{{"tool_response": ["{}"], "session_id": "s", "agent_id": "a"}}"#, "x".repeat(100_000));
        let input = Input::read(long.as_bytes()).expect("read");
        assert!(input.session_id.as_deref() == Some("s") && input.agent_id.is_some());
        let input = Input::read(&br#"{"session_id": "s", "agent_id": null, "reason": "clear"}"#[..]).expect("read");
        assert!(input.agent_id.is_none() && input.reason.as_deref() == Some("clear"));
    }

    #[test]
    fn what_is_broken_or_too_long_says_nothing_and_is_read_to_its_end() {
        let too_long = format!(r#"{{"tool_response": "{}"}}"#, "x".repeat(2 * LONGEST as usize));
        for (text, is_long) in [("", false), ("{", false), ("[]]", false), ("{\"session_id\": 1}", false), (&*too_long, true)] {
            let mut from = text.as_bytes();
            let error = Input::read(&mut from).expect_err(text);
            assert_eq!(matches!(error, Unreadable::TooLong), is_long);
            assert!(from.is_empty());
        }
    }
}
