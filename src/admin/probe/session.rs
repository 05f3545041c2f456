//! A session: a real `claude-peers-mcp`, driven over standard input and output as Claude Code drives it.

use super::stage::{PATIENCE, Stage, broken, ends_well, late};
use crate::console::Failure;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::VecDeque, path::Path, process::Stdio, time::Instant};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

/// The protocol that Claude Code offers.
const REVISION: &str = "2025-11-25";

/// A message pushed into the session.
pub struct Push {
    pub at: Instant,
    pub text: String,
    pub id: String,
}

/// A message that the broker has accepted.
#[derive(Deserialize)]
pub struct Sent {
    #[serde(rename = "messageId")]
    pub id: String,
    pub state: String,
    pub warning: Option<String>,
}

pub struct Session {
    pub name: String,
    process: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    answers: VecDeque<Value>,
    pushes: VecDeque<Push>,
    last_id: u64,
}

impl Session {
    /// Starts the server in `project` for the session `id`, with a value for `CLAUDE_PEERS_DELIVERY`, and does the handshake.
    pub async fn start(stage: &Stage, project: &Path, id: &str, delivery: &str) -> Result<Self, Failure> {
        let name = project.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut process = stage.start("claude-peers-mcp", &name, |command| {
            command.current_dir(project).stdin(Stdio::piped()).stdout(Stdio::piped());
            command.env("CLAUDECODE", "1").env("CLAUDE_CODE_ENTRYPOINT", "cli").env("CLAUDE_CODE_SESSION_ID", id);
            command.env("CLAUDE_PROJECT_DIR", project).env("PWD", project);
            // The start flags that prove a channel are absent here.
            command.env("CLAUDE_PEERS_DELIVERY", delivery);
        })?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(broken("claude-peers-mcp has no standard input and output"));
        };
        let stdout = BufReader::new(stdout).lines();
        let mut session = Self { name, process, stdin, stdout, answers: VecDeque::new(), pushes: VecDeque::new(), last_id: 0 };
        session.handshake().await?;
        Ok(session)
    }

    async fn handshake(&mut self) -> Result<(), Failure> {
        let client = json!({ "name": "claude-code", "version": "2.1.330" });
        let hello = json!({ "protocolVersion": REVISION, "capabilities": {}, "clientInfo": client });
        let server = self.request("initialize", hello).await?;
        if server["capabilities"]["experimental"]["claude/channel"].is_null() {
            return Err(self.broken("does not declare the claude/channel capability"));
        }
        self.write(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await
    }

    pub async fn tool(&mut self, name: &str, arguments: Value) -> Result<Value, Failure> {
        let mut result = self.request("tools/call", json!({ "name": name, "arguments": arguments })).await?;
        if result["isError"] == true {
            let said = result["content"][0]["text"].as_str().unwrap_or("no reason");
            return Err(self.broken(format!("answers to {name}: {said}")));
        }
        Ok(result["structuredContent"].take())
    }

    pub async fn send(&mut self, to: &str, reply_to: Option<&str>, text: &str) -> Result<Sent, Failure> {
        let arguments = json!({ "targetPeerId": to, "message": text, "replyTo": reply_to });
        let answer = self.tool("send_message", arguments).await?;
        let not_accepted = |_| broken(format!("send_message of {} was not accepted: {answer}", self.name));
        Sent::deserialize(&answer).map_err(not_accepted)
    }

    /// Waits for a pushed message.
    pub async fn push(&mut self) -> Result<Push, Failure> {
        let late = format!("nothing was pushed to {}", self.name);
        self.wait(|session| session.pushes.pop_front(), &late).await
    }

    /// A message that was pushed but not yet read.
    pub fn pushed(&mut self) -> Option<Push> {
        self.pushes.pop_front()
    }

    /// Ends the session as Claude Code does: closes its standard input and waits for the process.
    pub async fn end(self) -> Result<(), Failure> {
        let Self { name, process, stdin, .. } = self;
        drop(stdin);
        ends_well(process, &format!("the server of {name}")).await
    }

    async fn request(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        self.last_id += 1;
        let id = self.last_id;
        self.write(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await?;
        let late = format!("{} did not answer {method}", self.name);
        let mut answer = self.wait(|session| session.answers.pop_front(), &late).await?;
        match answer["result"].take() {
            result if answer["id"] == id && !result.is_null() => Ok(result),
            _ => Err(self.broken(format!("refuses {method}: {answer}"))),
        }
    }

    async fn write(&mut self, message: &Value) -> Result<(), Failure> {
        let line = format!("{message}\n");
        self.stdin.write_all(line.as_bytes()).await.map_err(|e| self.broken(format!("does not read: {e}")))
    }

    /// Reads until `take` accepts something.
    async fn wait<T>(&mut self, take: fn(&mut Self) -> Option<T>, what: &str) -> Result<T, Failure> {
        let taken = async {
            loop {
                if let Some(taken) = take(self) {
                    return Ok(taken);
                }
                self.read().await?;
            }
        };
        timeout(PATIENCE, taken).await.map_err(|_| late(what)).flatten()
    }

    /// Reads one message: a push, an answer, or another notification, which is dropped.
    async fn read(&mut self) -> Result<(), Failure> {
        let Ok(Some(line)) = self.stdout.next_line().await else { return Err(self.broken("has closed its output")) };
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|_| json!({ "not JSON": line }));
        match message["method"].as_str() {
            None => self.answers.push_back(message),
            Some("notifications/claude/channel") => {
                let text = |key: &str| message.pointer(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                let (text, id) = (text("/params/content"), text("/params/meta/message_id"));
                self.pushes.push_back(Push { at: Instant::now(), text, id });
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn broken(&self, what: impl std::fmt::Display) -> Failure {
        broken(format!("the server of {} {what}", self.name))
    }
}
