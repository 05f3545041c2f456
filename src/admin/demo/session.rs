//! A session, of the demo and of the check that ends setup: a real `claude-peers-mcp` process over standard input and output,
//! driven as Claude Code drives it.

use super::{
    PATIENCE,
    broker::{broken, cannot_run, ends_well},
    late,
    stage::Stage,
};
use crate::console::exit::Failure;
use serde_json::{Map, Value, json};
use std::{collections::VecDeque, path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin},
    sync::mpsc,
    time::{Instant, timeout},
};

/// Messages from the server that may wait to be looked at; far more than the demo ever has under way.
const BACKLOG: usize = 64;
/// What Claude Code offers, first in its probe and then in `initialize`.
const PROBED_REVISION: &str = "2026-07-28";
const REVISION: &str = "2025-11-25";

/// A message pushed into the session, and when.
pub struct Push {
    pub at: Instant,
    pub text: String,
    pub id: String,
}

pub struct Session {
    pub name: String,
    process: Child,
    stdin: ChildStdin,
    lines: mpsc::Receiver<(Instant, Value)>,
    /// What was pushed into it that nobody has looked at.
    pub pushed: VecDeque<Push>,
    last_id: u64,
}

impl Session {
    /// Starts the server in `project` for the session `id`, with `delivery` for `CLAUDE_PEERS_DELIVERY`, and does the handshake;
    /// says how long both took.
    pub async fn start(stage: &Stage, project: &Path, id: &str, delivery: &str) -> Result<(Self, Duration), Failure> {
        let began = Instant::now();
        let name = project.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = stage.program("claude-peers-mcp", &name)?;
        command.current_dir(project).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("CLAUDECODE", "1").env("CLAUDE_CODE_ENTRYPOINT", "cli").env("CLAUDE_CODE_SESSION_ID", id);
        command.env("CLAUDE_PROJECT_DIR", project).env("PWD", project);
        // A channel is proved by Claude Code's start flags, and there are none here.
        command.env("CLAUDE_PEERS_DELIVERY", delivery);
        let mut process = command.spawn().map_err(|e| cannot_run("claude-peers-mcp", &e))?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(broken("claude-peers-mcp has no standard input and output"));
        };
        let (sender, lines) = mpsc::channel(BACKLOG);
        tokio::spawn(async move {
            let mut stdout = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = stdout.next_line().await {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send((Instant::now(), line)).await.is_err() {
                    return; // nobody looks at this session any more
                }
            }
        });
        let mut session = Self { name, process, stdin, lines, pushed: VecDeque::new(), last_id: 0 };
        session.handshake().await?;
        Ok((session, began.elapsed()))
    }

    async fn handshake(&mut self) -> Result<(), Failure> {
        let client = json!({ "name": "claude-code", "version": "2.1.330" });
        let meta = json!({ "io.modelcontextprotocol/protocolVersion": PROBED_REVISION });
        self.exchange("server/discover", json!({ "_meta": meta })).await?; // may well be refused
        let hello = json!({ "protocolVersion": REVISION, "capabilities": {}, "clientInfo": client });
        let server = self.request("initialize", hello).await?;
        if server["capabilities"]["experimental"]["claude/channel"].is_null() {
            return Err(self.broken("does not declare the claude/channel capability"));
        }
        self.write(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await?;
        let listed = self.request("tools/list", json!({})).await?;
        let offers = |tool: &&str| listed["tools"].as_array().into_iter().flatten().any(|offered| offered["name"] == *tool);
        let missing = ["list_peers", "send_message", "set_summary", "check_messages"].into_iter().find(|tool| !offers(tool));
        missing.map_or(Ok(()), |tool| Err(self.broken(format!("does not offer the tool {tool}"))))
    }

    pub async fn tool(&mut self, name: &str, arguments: Value) -> Result<Value, Failure> {
        let mut result = self.request("tools/call", json!({ "name": name, "arguments": arguments })).await?;
        if result["isError"] == true {
            let said = result["content"][0]["text"].as_str().unwrap_or("no reason");
            return Err(self.broken(format!("answers to {name}: {said}")));
        }
        Ok(result["structuredContent"].take())
    }

    pub async fn push(&mut self) -> Result<Push, Failure> {
        let waited = async {
            while self.pushed.is_empty() {
                if let Some(answer) = self.read().await? {
                    return Err(self.broken(format!("answers to nothing: {}", Value::from(answer))));
                }
            }
            Ok(())
        };
        timeout(PATIENCE, waited).await.unwrap_or(Ok(()))?;
        self.pushed.pop_front().ok_or_else(|| late(&format!("nothing was pushed to {}", self.name)))
    }

    /// Ends the session as Claude Code does: its standard input ends, and the process follows by itself.
    pub async fn end(self) -> Result<(), Failure> {
        let Self { name, process, stdin, .. } = self;
        drop(stdin);
        ends_well(process, &format!("the server of {name}"), "whose input has ended").await
    }

    /// A request that must succeed; gives its result.
    async fn request(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        let mut answer = self.exchange(method, params).await?;
        match answer.remove("result") {
            Some(result) => Ok(result),
            None => Err(self.broken(format!("refuses {method}: {}", Value::from(answer)))),
        }
    }

    /// A request with its answer, whatever that is. What is pushed meanwhile is kept.
    async fn exchange(&mut self, method: &str, params: Value) -> Result<Map<String, Value>, Failure> {
        self.last_id += 1;
        let id = self.last_id;
        self.write(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await?;
        let answered = async {
            loop {
                match self.read().await? {
                    Some(answer) if answer.get("id") == Some(&id.into()) => return Ok(answer),
                    Some(other) => {
                        return Err(self.broken(format!("answers another question than {method}: {}", Value::from(other))));
                    }
                    None => {}
                }
            }
        };
        let answered = timeout(PATIENCE, answered).await;
        answered.unwrap_or_else(|_| Err(late(&format!("{} did not answer {method}", self.name))))
    }

    async fn write(&mut self, message: &Value) -> Result<(), Failure> {
        let line = format!("{message}\n");
        self.stdin.write_all(line.as_bytes()).await.map_err(|e| self.broken(format!("does not read: {e}")))
    }

    /// Reads one message: an answer is given back, a push is kept, other notifications are let go.
    async fn read(&mut self) -> Result<Option<Map<String, Value>>, Failure> {
        let Some((at, line)) = self.lines.recv().await else { return Err(self.broken("has closed its output")) };
        let Value::Object(mut message) = line else { return Err(self.broken(format!("wrote what is not JSON-RPC: {line}"))) };
        let Some(method) = message.get("method").and_then(Value::as_str) else { return Ok(Some(message)) };
        if method == "notifications/claude/channel" {
            let params = message.remove("params").unwrap_or_default();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            self.pushed.push_back(Push { at, text: text(&params["content"]), id: text(&params["meta"]["message_id"]) });
        }
        Ok(None)
    }

    fn broken(&self, what: impl std::fmt::Display) -> Failure {
        broken(format!("the server of {} {what}", self.name))
    }
}
