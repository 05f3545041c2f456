//! What Claude Code tells a hook on standard input. It may hold all that a tool has given back: it is read in passing, and only
//! what a hook needs is kept.

use memchr::memmem::Finder;
use serde::{Deserialize, de::IgnoredAny};
use std::io::{self, BufReader, Read};

/// The longest input that is parsed, in bytes: more would take more time than a hook has. A longer one is only searched.
const LONGEST: u64 = 32 * 1024;
/// How a subagent's input is told from others, as it stands there. Within a text the quotation marks would be escaped.
const OF_AGENT: &[u8] = b"\"agent_id\"";

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
    /// Why the rest is not known, if it is not.
    #[serde(skip)]
    pub unread: Option<Unread>,
}

/// Why an input was not parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It was too long: all that is known is whether it may be a subagent's.
    Long,
    /// There was none. Some versions of Claude Code give asynchronous hooks none on some systems.
    Empty,
}

impl Input {
    /// Reads all of it, to the end: whoever writes it is not to find nobody there.
    ///
    /// # Errors
    /// If it is not what it should be.
    pub fn read(from: impl Read) -> io::Result<Self> {
        let mut from = BufReader::with_capacity(16 * 1024, Searched::new(from));
        let mut limited = from.by_ref().take(LONGEST);
        let read = serde_json::from_reader(&mut limited);
        let unread = match limited.limit() {
            0 => Some(Unread::Long),
            LONGEST => Some(Unread::Empty),
            _ => None,
        };
        io::copy(&mut from, &mut io::sink())?;
        match read {
            Err(_) if unread.is_some() => {
                let agent_id = from.get_ref().found.then_some(IgnoredAny);
                Ok(Self { agent_id, unread, ..Self::default() })
            }
            read => Ok(read?),
        }
    }
}

/// A reader that looks for [`OF_AGENT`] in what passes through it.
struct Searched<R> {
    from: R,
    finder: Finder<'static>,
    /// What passes, behind the end of what passed before: the mark may stand across the seam.
    window: Vec<u8>,
    found: bool,
}

impl<R> Searched<R> {
    fn new(from: R) -> Self {
        Self { from, finder: Finder::new(OF_AGENT), window: Vec::new(), found: false }
    }
}

impl<R: Read> Read for Searched<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.window.extend_from_slice(&into[..read]);
        self.found |= self.finder.find(&self.window).is_some();
        self.window.drain(..self.window.len().saturating_sub(OF_AGENT.len() - 1));
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_found_wherever_it_stands() {
        let long = format!(r#"{{"tool_response": ["{}"], "session_id": "s", "agent_id": "a"}}"#, "x".repeat(20_000));
        let input = Input::read(long.as_bytes()).expect("read");
        assert!(input.session_id.as_deref() == Some("s") && input.agent_id.is_some());
        let input = Input::read(&br#"{"session_id": "s", "agent_id": null, "reason": "clear"}"#[..]).expect("read");
        assert!(input.agent_id.is_none() && input.reason.as_deref() == Some("clear"));
    }

    #[test]
    fn what_is_broken_is_an_error_and_read_to_its_end() {
        for text in [" ", "{", "[]]", "{\"session_id\": 1}"] {
            let mut from = text.as_bytes();
            Input::read(&mut from).expect_err(text);
            assert!(from.is_empty());
        }
    }

    #[test]
    fn what_is_too_long_is_searched_for_a_subagents_mark() {
        let filler = "x".repeat(2 * LONGEST as usize);
        let escaped =
            format!("{{\"tool_response\": {}, \"tool_name\": \"Read\"}}", serde_json::json!(format!("\"agent_id\"{filler}")));
        let behind = |pad: usize| format!("{{\"tool_response\": \"{filler}{}\", \"agent_id\": \"a\"}}", "x".repeat(pad));
        // Wherever the seams of the reads are.
        let agents = (0..20).map(|pad| (behind(pad), true));
        for (text, is_agents) in agents.chain([(escaped, false), (format!("{{\"agent_id\": 1, \"a\": \"{filler}\"}}"), true)]) {
            let mut from = text.as_bytes();
            let input = Input::read(&mut from).expect("searched");
            assert_eq!((input.unread, input.agent_id.is_some()), (Some(Unread::Long), is_agents));
            assert!(from.is_empty());
        }
        assert_eq!(Input::read(&b""[..]).expect("nothing").unread, Some(Unread::Empty));
    }
}
