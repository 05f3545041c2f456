//! The inbox socket of a session's client: Claude Code's documented door into a session.
//!
//! Each frame takes one connection: a line of JSON, then the end. The client never answers, so a written frame may still not be let
//! in. Promises: only an inbox of this user is written to (a socket, no link, that only this user may write, and at its other end
//! a process of this user); no message can end its fence or the frame's tag.
//!
//! A frame has the form of those that the client's own `SendMessage` tool writes: with the sender's name, and an address for an answer.

use crate::{
    agents::shown::Shown,
    platform::{clock, random},
    wire::{Sender, text},
};
use rustix::fs::FileType;
use serde_json::json;
use std::{fs, io, os::unix::fs::MetadataExt, path::Path, time::Duration};
use tokio::{io::AsyncWriteExt, net::UnixStream, time::timeout};

/// How long connecting and writing may take. The client reads at once, whatever its model does.
const PATIENCE: Duration = Duration::from_secs(5);
/// The tag around a frame's text.
const TAG: &str = "cross-session-message";

/// Connects to the inbox at `path`; gives the stream and the process at its other end.
///
/// # Errors
/// If there is none, or another user could be behind it.
pub async fn connect(path: &Path) -> io::Result<(UnixStream, u32)> {
    let refused = |what: &str| io::Error::new(io::ErrorKind::PermissionDenied, format!("{}: {what}", path.display()));
    let meta = fs::symlink_metadata(path)?;
    let ours = rustix::process::getuid().as_raw();
    if !FileType::from_raw_mode(meta.mode()).is_socket() {
        return Err(refused("is no socket"));
    }
    if meta.uid() != ours {
        return Err(refused("belongs to another user"));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(refused("may be written by other users"));
    }
    let stream = timeout(PATIENCE, UnixStream::connect(path)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let peer = stream.peer_cred()?;
    if peer.uid() != ours {
        return Err(refused("another user's process listens there"));
    }
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    Ok((stream, pid.ok_or_else(|| refused("the process that listens there cannot be told"))?))
}

/// Writes a frame into the inbox at `path` of the agent process `agent`.
///
/// # Errors
/// If another process listens there, or not all of the frame was written.
pub async fn post(path: &Path, agent: u32, frame: &str) -> io::Result<()> {
    let (mut stream, pid) = connect(path).await?;
    if pid != agent {
        return Err(io::Error::other(format!("{}: process {pid} listens there, not {agent}", path.display())));
    }
    let write = async {
        stream.write_all(frame.as_bytes()).await?;
        stream.write_all(b"\n").await?;
        stream.shutdown().await
    };
    timeout(PATIENCE, write).await.map_err(|_| io::ErrorKind::TimedOut)?
}

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
    let blocks: Vec<String> = messages.iter().map(Shown::in_frame).collect();
    // The client drops a text that it has just had from the same sender.
    let again = messages.iter().any(|shown| shown.message.repeat).then(|| format!("(written again at {})", clock::now()));
    let content = text::defused(&blocks.into_iter().chain(again).collect::<Vec<_>>().join("\n\n"), TAG);
    let mode = match mode {
        Mode::Prompting => " from-mode=\"prompting\"",
        Mode::Bypass => " from-mode=\"bypass\"",
        Mode::Unsaid => "",
    };
    let content = format!("<{TAG} {from}from-name=\"{}\"{mode}>\n{content}\n</{TAG}>", text::attribute(name));
    let mut frame = json!({
        "type": "user", "message": {"role": "user", "content": content}, "msgV": 1, "msg_id": uuid(), "priority": "next",
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

/// A random UUID (RFC 9562, version 4).
fn uuid() -> String {
    let mut bytes = [0u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        return random::token(32);
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
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
