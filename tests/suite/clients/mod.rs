//! Other clients than Claude Code: each is recognised by its name, and gets what fits it.

mod door;
mod published;
mod results;
mod who;

use crate::support::{Broker, Session, folder, mcp::Start};
use std::{os::unix::process::CommandExt, path::Path};
use tempfile::TempDir;

/// Names that clients give themselves. The last is unknown to us.
const NAMES: [&str; 11] = [
    "claude-code",
    "codex-mcp-client",
    "gemini-cli-mcp-client",
    "qwen-cli-mcp-client-claude-peers",
    "copilot-cli",
    "opencode",
    "goose-cli",
    "pi",
    "@cline/core",
    "mcp",
    "some-new-client",
];

/// How a session's server is started that another session of Claude Code surrounds: its environment names that session.
fn start<'a>(broker: &'a Broker, directory: &'a Path) -> Start<'a> {
    Start { broker, directory, session_id: "session-a", delivery: "", env: Vec::new() }
}

/// The same under a process that looks like the program `agent`.
fn under(agent: &str, start: &Start) -> Session {
    let mut command = start.claude("\"$SERVER\"", &[]);
    command.arg0(agent);
    Session::spawn(command)
}

/// A broker, and a session of the client `name` in a directory of its own.
fn one(name: &str) -> (Broker, TempDir, Session) {
    let (broker, place) = (Broker::start(), folder());
    let session = open(&broker, place.path(), name);
    (broker, place, session)
}

/// A session of the client `name`.
fn open(broker: &Broker, directory: &Path, name: &str) -> Session {
    let mut session = Session::spawn(start(broker, directory).command());
    session.handshake_as(name);
    session
}
