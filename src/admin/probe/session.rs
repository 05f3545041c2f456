//! A session: a real `claude-peers-mcp`, driven over standard input and output as Claude Code drives it.

use super::{PATIENCE, Stage, broken, cannot_run, ends_well, late};
use crate::console::exit::Failure;
use serde_json::{Value, json};
use std::{path::Path, process::Stdio, time::Instant};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    sync::mpsc,
    time::timeout,
};

/// Far more than a trial ever has under way.
const BACKLOG: usize = 64;
/// The protocol that Claude Code offers.
const REVISION: &str = "2025-11-25";

/// A message pushed into the session.
pub struct Push {
    pub at: Instant,
    pub text: String,
    pub id: String,
}

/// A message that the broker has accepted.
pub struct Sent {
    pub id: String,
    pub state: String,
    pub warning: Option<String>,
}

pub struct Session {
    pub name: String,
    process: Child,
    stdin: ChildStdin,
    answers: mpsc::Receiver<Value>,
    pushes: mpsc::Receiver<Push>,
    last_id: u64,
}

impl Session {
    /// Starts the server in `project` for the session `id`, with a value for `CLAUDE_PEERS_DELIVERY`, and does the handshake.
    pub async fn start(stage: &Stage, project: &Path, id: &str, delivery: &str) -> Result<Self, Failure> {
        let name = project.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = stage.program("claude-peers-mcp", &name)?;
        command.current_dir(project).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("CLAUDECODE", "1").env("CLAUDE_CODE_ENTRYPOINT", "cli").env("CLAUDE_CODE_SESSION_ID", id);
        command.env("CLAUDE_PROJECT_DIR", project).env("PWD", project);
        // The start flags that prove a channel are missing here.
        command.env("CLAUDE_PEERS_DELIVERY", delivery);
        let mut process = command.spawn().map_err(|e| cannot_run("claude-peers-mcp", &e))?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(broken("claude-peers-mcp has no standard input and output"));
        };
        let ((answer, answers), (push, pushes)) = (mpsc::channel(BACKLOG), mpsc::channel(BACKLOG));
        tokio::spawn(read(stdout, answer, push));
        let mut session = Self { name, process, stdin, answers, pushes, last_id: 0 };
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
        let mut arguments = json!({ "targetPeerId": to, "message": text });
        if let Some(id) = reply_to {
            arguments["replyTo"] = id.into();
        }
        let answer = self.tool("send_message", arguments).await?;
        let text = |key: &str| answer[key].as_str().map(str::to_owned);
        match (answer["success"] == true, text("messageId"), text("state")) {
            (true, Some(id), Some(state)) => Ok(Sent { id, state, warning: text("warning") }),
            _ => Err(broken(format!("send_message of {} was not accepted: {answer}", self.name))),
        }
    }

    /// Waits for a pushed message.
    pub async fn push(&mut self) -> Result<Push, Failure> {
        let pushed = timeout(PATIENCE, self.pushes.recv()).await;
        let pushed = pushed.map_err(|_| late(&format!("nothing was pushed to {}", self.name)))?;
        pushed.ok_or_else(|| self.broken("has closed its output"))
    }

    /// A message that was pushed and not looked at.
    pub fn pushed(&mut self) -> Option<Push> {
        self.pushes.try_recv().ok()
    }

    /// Ends the session as Claude Code does: its standard input ends, and the process follows.
    pub async fn end(self) -> Result<(), Failure> {
        let Self { name, process, stdin, .. } = self;
        drop(stdin);
        ends_well(process, &format!("the server of {name}")).await
    }

    async fn request(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        self.last_id += 1;
        let id = self.last_id;
        self.write(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await?;
        let answer = timeout(PATIENCE, self.answers.recv()).await;
        let answer = answer.map_err(|_| late(&format!("{} did not answer {method}", self.name)))?;
        let mut answer = answer.ok_or_else(|| self.broken("has closed its output"))?;
        match answer["result"].take() {
            result if answer["id"] == id && !result.is_null() => Ok(result),
            _ => Err(self.broken(format!("refuses {method}: {answer}"))),
        }
    }

    async fn write(&mut self, message: &Value) -> Result<(), Failure> {
        let line = format!("{message}\n");
        self.stdin.write_all(line.as_bytes()).await.map_err(|e| self.broken(format!("does not read: {e}")))
    }

    fn broken(&self, what: impl std::fmt::Display) -> Failure {
        broken(format!("the server of {} {what}", self.name))
    }
}

/// Sorts the server's messages: pushes, answers; other notifications are dropped.
async fn read(stdout: ChildStdout, answers: mpsc::Sender<Value>, pushes: mpsc::Sender<Push>) {
    let mut stdout = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = stdout.next_line().await {
        let mut message: Value = serde_json::from_str(&line).unwrap_or_else(|_| json!({ "not JSON": line }));
        let is_open = match message["method"].as_str() {
            Some("notifications/claude/channel") => {
                let params = message["params"].take();
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let push = Push { at: Instant::now(), text: text(&params["content"]), id: text(&params["meta"]["message_id"]) };
                pushes.send(push).await.is_ok()
            }
            Some(_) => true,
            None => answers.send(message).await.is_ok(),
        };
        if !is_open {
            return; // the session is over
        }
    }
}
