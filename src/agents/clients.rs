//! The MCP clients that are known, and how each treats our server.
//!
//! A client is recognised by the name in its `initialize`. The server looks up here whatever it does differently for one client. A client
//! that is not in the table gets [`UNKNOWN`], which promises nothing. The facts were seen with the versions in `docs/agents.md`.

use super::{
    codex::daemon::{SUBAGENT, THREAD, THREAD_SOURCE},
    names::{self, Name},
    qwen,
};
use serde_json::{Map, Value};
use std::{path::Path, time::Duration};

use {Patience::*, SessionId::*, Shows::*};

/// Which part of a result a client shows its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    Text,
    /// The structured content, if there is any.
    Structured,
    Both,
    /// Not known, so a result has both.
    Either,
}

/// What a client does when a call takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It waits as long as the call takes, or cancels it.
    Waits,
    /// It cancels the call after this many seconds.
    Cancels(u64),
    /// It waits this many seconds. Then it may give the call up and not say so.
    Silent(u64),
}

/// Where a client names its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionId {
    Nowhere,
    /// In this variable of our environment.
    Variable(&'static str),
    /// Under this key of each call's `_meta`.
    Meta(&'static str),
}

#[derive(Debug)]
pub struct Client {
    /// Its name in `initialize`; a `*` stands for any ending.
    name: &'static str,
    pub shows: Shows,
    /// Whether it shows its model the instructions of `initialize`.
    pub shows_instructions: bool,
    patience: Patience,
    pub session_id: SessionId,
    /// Its program, and the package with the script if a JavaScript runtime runs it.
    pub program: &'static str,
    package: &'static str,
    /// The variable in which it passes the path of a session's inbox socket to its child processes.
    pub inbox: Option<&'static str>,
    /// Whether our plugin can run in it.
    pub has_plugin: bool,
    /// Whether a daemon may run its sessions.
    pub has_daemon: bool,
    /// Whether our hook can run in its sessions, of which each has a process of its own unless it was started with one of these flags.
    pub hooks: Option<&'static [&'static str]>,
    /// The start flags that bypass its permission prompts, each with its value. Claude Code's modes are more than flags.
    bypass: &'static [&'static str],
    /// The key in a call's `_meta`, and the field under it, that says [`SUBAGENT`] for a subagent's call.
    subagent: Option<[&'static str; 2]>,
}

/// The time that is left for an answer after a wait.
const LEEWAY: Duration = Duration::from_secs(10);
/// The longest session id that the broker takes.
const LONGEST_ID: usize = 128;
const CLAUDE_CODE: &str = "claude-code";
const CODEX: &str = "codex-mcp-client";

/// The flags of Gemini CLI and its descendants.
const YOLO: &[&str] = &["--yolo", "-y", "--approval-mode=yolo"];

/// Any other client. Most MCP libraries give a call up after 60 s.
pub static UNKNOWN: Client = client("", Either, false, Silent(60), Nowhere, names::NOBODY);

/// For each client: its name in `initialize`, what of a result it shows its model, whether it shows the instructions, its patience, where it names its
/// session, and its program.
static KNOWN: [Client; 10] = [
    Client {
        inbox: Some("CLAUDE_CODE_MESSAGING_SOCKET"),
        ..client(CLAUDE_CODE, Structured, true, Waits, Variable("CLAUDE_CODE_SESSION_ID"), names::CLAUDE)
    },
    Client {
        subagent: Some(THREAD_SOURCE),
        has_daemon: true,
        bypass: &["--dangerously-bypass-approvals-and-sandbox", "--yolo"],
        ..client(CODEX, Structured, true, Silent(130), Meta(THREAD), names::CODEX)
    },
    Client {
        hooks: Some(&["--acp", "--experimental-acp"]),
        bypass: YOLO,
        ..client("gemini-cli-mcp-client*", Text, true, Silent(130), Nowhere, names::GEMINI)
    },
    Client {
        inbox: Some(qwen::SOCKET),
        bypass: YOLO,
        ..client("qwen-cli-mcp-client*", Both, true, Silent(130), Variable(qwen::SESSION), names::QWEN)
    },
    Client {
        has_plugin: true,
        bypass: &["--yolo", "--allow-all", "--allow-all-tools"],
        ..client("copilot-cli", Both, false, Silent(130), Variable("COPILOT_AGENT_SESSION_ID"), names::COPILOT)
    },
    Client { has_plugin: true, ..client("opencode", Text, true, Cancels(60), Nowhere, names::OPENCODE) },
    Client { has_plugin: true, ..client("pi", Text, true, Waits, Variable("CLAUDE_PEERS_PI_SESSION"), names::PI) },
    client("goose-cli", Text, true, Silent(130), Variable("AGENT_SESSION_ID"), names::GOOSE),
    client("@cline/core", Both, false, Silent(60), Nowhere, names::CLINE),
    // The name that the Python SDK gives for a program that names none.
    client("mcp", Either, false, Silent(60), Nowhere, names::NOBODY),
];

const fn client(
    name: &'static str,
    shows: Shows,
    shows_instructions: bool,
    patience: Patience,
    session_id: SessionId,
    Name { program, package }: Name,
) -> Client {
    Client {
        name,
        shows,
        shows_instructions,
        patience,
        session_id,
        program,
        package,
        inbox: None,
        has_plugin: false,
        has_daemon: false,
        hooks: None,
        bypass: &[],
        subagent: None,
    }
}

/// The client with this name.
pub fn named(name: &str) -> &'static Client {
    let is = |client: &&Client| match client.name.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == client.name,
    };
    KNOWN.iter().find(is).unwrap_or(&UNKNOWN)
}

impl Client {
    pub fn is_claude_code(&self) -> bool {
        self.name == CLAUDE_CODE
    }

    /// The longest wait in one call, if there is a limit: less than its patience, to leave time for the answer.
    pub fn longest_wait(&self) -> Option<Duration> {
        match self.patience {
            Waits => None,
            Cancels(seconds) | Silent(seconds) => Some(Duration::from_secs(seconds) - LEEWAY),
        }
    }

    /// Whether it may have silently given up a call that it made this long ago.
    pub fn may_have_given_up(&self, after: Duration) -> bool {
        matches!(self.patience, Silent(seconds) if after >= Duration::from_secs(seconds))
    }

    /// Whether a command line is its program's, or that of a JavaScript runtime that runs it.
    pub fn runs(&self, command_line: &[String]) -> bool {
        let name = |word: &str| Path::new(word).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(first) = command_line.first() else { return false };
        // A background session of Claude Code has a title as its first word: `claude bg-spare`.
        match name(first).split(' ').next() {
            Some("node" | "bun") => {
                let script = command_line.iter().skip(1).find(|word| !word.starts_with('-'));
                script.is_some_and(|script| name(script) == self.program || script.contains(self.package))
            }
            program => program == Some(self.program),
        }
    }

    /// Whether a command line is that of another client that is known.
    pub fn is_another(&self, command_line: &[String]) -> bool {
        let is_it = |client: &Client| !client.program.is_empty() && client.runs(command_line);
        !self.runs(command_line) && KNOWN.iter().any(is_it)
    }

    /// Whether this command line of its program bypasses permission prompts.
    pub fn bypasses(&self, command_line: &[String]) -> bool {
        let with_value = command_line.windows(2).map(|words| words.join("="));
        command_line.iter().cloned().chain(with_value).any(|flag| self.bypass.contains(&&*flag))
    }

    /// The id under which the broker knows this client's session `id`; none if it is unusable. It names the client, because the ids of
    /// two kinds of client may be equal.
    pub fn peer_session(&self, id: &str) -> Option<String> {
        let session = if self.is_claude_code() { id.to_owned() } else { format!("{}:{id}", self.program) };
        let is_usable = !id.is_empty() && session.len() <= LONGEST_ID && session.bytes().all(|byte| byte.is_ascii_graphic());
        is_usable.then_some(session)
    }

    /// The client's own id of a session that the broker knows under `session`.
    pub fn own_session<'a>(&self, session: &'a str) -> &'a str {
        session.strip_prefix(self.program).and_then(|id| id.strip_prefix(':')).unwrap_or(session)
    }

    /// Whether this `_meta` marks the call of a subagent.
    pub fn is_subagents(&self, meta: &Map<String, Value>) -> bool {
        self.subagent.is_some_and(|[key, field]| meta.get(key).is_some_and(|told| told[field] == SUBAGENT))
    }

    /// The session that this `_meta` names, under the id by which the broker knows it.
    pub fn session_of(&self, meta: &Map<String, Value>) -> Option<String> {
        let SessionId::Meta(key) = self.session_id else { return None };
        self.peer_session(meta.get(key)?.as_str()?)
    }
}
