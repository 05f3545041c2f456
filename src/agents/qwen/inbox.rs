//! The inbox socket of a Qwen Code session, as its page "Cross-Session Protocol" describes it (frame version 1).
//!
//! The token from our environment shows that the session started us, so its default policy lets our frames in. A frame names the
//! conversation for which it is meant: `/clear` and `/resume` change it under the same process. A written frame may still not be let
//! in, and no hook runs when it is (0.24.4). But Qwen Code writes each text that it lets in into the conversation's transcript.

use super::TOKEN;
use crate::{
    agents::{Fate, socket},
    platform::{files, paths, random, settings},
    wire::MessageId,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Longest record of a session, in bytes.
const LONGEST_RECORD: u64 = 64 * 1024;
/// How much of a transcript is read at a time, in bytes.
const LONGEST_READ: u64 = 8 * 1024 * 1024;
/// The pauses between two looks at a transcript: at first, and at most.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_secs(2);

/// The inbox of one conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbox {
    path: PathBuf,
    /// The process that listens.
    agent: u32,
    token: String,
    /// The conversation's id.
    pub session: String,
    /// Where it is recorded.
    transcript: PathBuf,
}

impl Inbox {
    /// The inbox at `path` of the process `agent`, for its present conversation.
    ///
    /// # Errors
    /// If the session's record or its transcript cannot be found.
    pub fn open(path: PathBuf, agent: u32) -> io::Result<Self> {
        let missing = |what: &str| io::Error::new(io::ErrorKind::NotFound, what);
        let token = settings::text(TOKEN).ok().flatten().ok_or_else(|| missing("there is no token for it"))?;
        let session = session_of(agent)?;
        let transcript = transcript(&session)?.ok_or_else(|| missing("the conversation has no transcript"))?;
        Ok(Self { path, agent, token, session, transcript })
    }

    /// Writes `text`, from the peer `from`. Returns where in the transcript it can appear.
    ///
    /// # Errors
    /// If the conversation has changed, another process listens, or not all was written.
    pub async fn post(&self, from: &str, text: &str) -> io::Result<u64> {
        if session_of(self.agent)? != self.session {
            return Err(io::Error::other("the session has changed to another conversation"));
        }
        let end = fs::metadata(&self.transcript).map_or(0, |meta| meta.len());
        socket::post(&self.path, self.agent, &frame(&self.token, &self.session, from, text)).await?;
        Ok(end)
    }

    /// Waits until the transcript shows these messages after `place`, or the session has changed to another conversation.
    pub async fn shows(&self, mut place: u64, mut messages: Vec<MessageId>) -> Fate {
        let began = Instant::now();
        loop {
            sleep((began.elapsed() / 8).clamp(FIRST_LOOK, LONGEST_LOOK)).await;
            let lines = lines_after(&self.transcript, &mut place).unwrap_or_default(); // there is none before the first prompt
            messages.retain(|id| !is_shown(&lines, id));
            if messages.is_empty() {
                return Ok(());
            }
            if session_of(self.agent).is_ok_and(|session| session != self.session) {
                return Err("the session has changed to another conversation".to_owned());
            }
        }
    }
}

/// The present conversation of a session, from the record that it publishes.
pub fn session_of(agent: u32) -> io::Result<String> {
    let text = files::read(&home()?.join(format!("sessions/{agent}.json")), LONGEST_RECORD)?;
    let record: Value = serde_json::from_slice(&text)?;
    let id = record["sessionId"].as_str().map(str::to_owned);
    id.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the session's record names no conversation"))
}

/// The transcript of a conversation; none if its folder is unknown. Beside it lies a file that is there from the start.
fn transcript(session: &str) -> io::Result<Option<PathBuf>> {
    for project in fs::read_dir(home()?.join("projects"))? {
        let chats = project?.path().join("chats");
        if chats.join(format!("{session}.runtime.json")).exists() {
            return Ok(Some(chats.join(format!("{session}.jsonl"))));
        }
    }
    Ok(None)
}

/// Qwen Code's folder.
fn home() -> io::Result<PathBuf> {
    let set = settings::raw("QWEN_HOME").map(PathBuf::from);
    set.map_or_else(|| Ok(paths::home().map_err(io::Error::other)?.join(".qwen")), Ok)
}

/// The whole lines of a file after `place`, which moves behind them.
fn lines_after(file: &Path, place: &mut u64) -> io::Result<Vec<u8>> {
    let mut file = files::open(file)?;
    file.seek(SeekFrom::Start(*place))?;
    let mut text = Vec::new();
    file.take(LONGEST_READ).read_to_end(&mut text)?;
    let is_full = text.len() as u64 == LONGEST_READ; // then a line without an end is too long to be ours
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(if is_full { text.len() } else { 0 }, |end| end + 1);
    text.truncate(end);
    *place += end as u64;
    Ok(text)
}

/// Whether a text that the session was given holds this message. Its id begins a line there, which no line of a message's text does.
fn is_shown(lines: &[u8], id: &MessageId) -> bool {
    let id = format!("id {id} ");
    lines.split(|byte| *byte == b'\n').any(|line| {
        let Ok(line) = std::str::from_utf8(line) else { return false };
        line.contains(&id) && serde_json::from_str::<Value>(line).is_ok_and(|line| line["type"] == "user" && has_line(&line, &id))
    })
}

/// Whether a text in this value has a line that begins so.
fn has_line(value: &Value, beginning: &str) -> bool {
    match value {
        Value::String(text) => text.lines().any(|line| line.starts_with(beginning)),
        Value::Array(values) => values.iter().any(|value| has_line(value, beginning)),
        Value::Object(fields) => fields.values().any(|value| has_line(value, beginning)),
        _ => false,
    }
}

/// Two lines of JSON: the token, and the message for this conversation.
fn frame(token: &str, session: &str, from: &str, text: &str) -> String {
    let auth = json!({"msgV": 1, "type": "auth", "token": token});
    let message = json!({
        "msgV": 1, "msgId": random::uuid(), "type": "user", "fromName": from, "toSessionId": session, "priority": "next",
        "message": {"role": "user", "content": text},
    });
    format!("{auth}\n{message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_itself_proves_it() {
        let id: MessageId = "m7-abcdef".parse().expect("an id");
        let line = |kind: &str, text: &str| json!({"type": kind, "message": {"parts": [{"text": text}]}}).to_string() + "\n";
        for (kind, text, expected) in [
            ("user", "<x>\n> It is 8080\nid m7-abcdef · sent now\n</x>", true),
            ("assistant", "<x>\n> It is 8080\nid m7-abcdef · sent now\n</x>", false),
            ("user", "<x>\n> id m7-abcdef · sent now\nid m8-abcdef · sent now\n</x>", false),
            ("user", "<x>\nid m7-abcdefg · sent now\n</x>", false),
            ("user", "> a log: \\nid m7-abcdef · sent now", false),
        ] {
            assert_eq!(is_shown((line("user", "hello") + &line(kind, text)).as_bytes(), &id), expected, "{kind}: {text}");
        }
    }
}
