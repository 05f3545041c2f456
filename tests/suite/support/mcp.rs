//! A real `claude-peers-mcp`, driven over stdio as Claude Code drives it.

use super::{Broker, PATIENCE};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

/// A session: an MCP server process and the client's side of its stdio.
pub struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    pushes: VecDeque<Value>,
    answers: VecDeque<Value>,
    next: u64,
}

/// How a session is started.
pub struct Start<'a> {
    pub broker: &'a Broker,
    pub directory: &'a Path,
    /// `CLAUDE_CODE_SESSION_ID`
    pub session_id: &'a str,
    /// `CLAUDE_PEERS_DELIVERY`; empty: not set.
    pub delivery: &'a str,
    pub env: Vec<(String, String)>,
}

impl<'a> Start<'a> {
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claude-peers-mcp"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.broker.folder());
        command.envs(self.broker.env());
        command.envs([
            ("CLAUDECODE", "1"),
            ("CLAUDE_CODE_ENTRYPOINT", "cli"),
            ("CLAUDE_CODE_SESSION_ID", self.session_id),
            ("CLAUDE_PEERS_DELIVERY", self.delivery),
        ]);
        command.env("CLAUDE_PROJECT_DIR", self.directory).env("PWD", self.directory).envs(self.env.iter().cloned());
        command.current_dir(self.directory);
        command
    }

    /// Starts it and does the whole handshake.
    pub fn go(self) -> Session {
        let mut session = Session::spawn(self.command());
        session.handshake();
        session
    }
}

impl Session {
    /// A session with an open channel.
    pub fn start(broker: &Broker, directory: &Path, session_id: &str) -> Self {
        Start { broker, directory, session_id, delivery: "channel", env: Vec::new() }.go()
    }

    /// A session without channel: mail comes with tool results.
    pub fn pulling(broker: &Broker, directory: &Path, session_id: &str) -> Self {
        Start { broker, directory, session_id, delivery: "pull", env: Vec::new() }.go()
    }

    /// Starts the process; nothing is said yet.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        Self { child, stdin, lines, pushes: VecDeque::new(), answers: VecDeque::new(), next: 1 }
    }

    /// `server/discover`, `initialize`, `notifications/initialized`, `tools/list`: what Claude Code says. The result of
    /// `initialize`.
    pub fn handshake(&mut self) -> Value {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
        let discover = self.ask("server/discover", json!({"_meta": meta}));
        drop(self.answer(discover)); // an error, or revisions; another test looks closer
        let initialize = self.ask(
            "initialize",
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "claude-code", "version": "2.1.330"}}),
        );
        let answer = self.answer(initialize);
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        let tools = self.ask("tools/list", json!({}));
        self.answer(tools);
        answer["result"].clone()
    }

    /// Writes one message.
    pub fn say(&mut self, message: &Value) {
        self.say_raw(&format!("{message}\n"));
    }

    /// Writes these bytes.
    pub fn say_raw(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Writes a request; its id.
    pub fn ask(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next;
        self.next += 1;
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// Waits for the answer to a request: the whole message.
    pub fn answer(&mut self, id: u64) -> Value {
        let start = Instant::now();
        loop {
            if let Some(at) = self.answers.iter().position(|answer| answer["id"] == id) {
                return self.answers.remove(at).unwrap();
            }
            self.read(PATIENCE.saturating_sub(start.elapsed())).unwrap_or_else(|e| panic!("no answer to request {id}: {e}"));
        }
    }

    fn read(&mut self, patience: Duration) -> Result<(), RecvTimeoutError> {
        let message = self.lines.recv_timeout(patience)?;
        if message.get("id").is_some() {
            self.answers.push_back(message);
        } else if message["method"] == "notifications/claude/channel" {
            self.pushes.push_back(message["params"].clone());
        }
        Ok(())
    }

    /// Calls a tool; the result, error or not.
    pub fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let id = self.ask("tools/call", json!({"name": tool, "arguments": arguments}));
        let answer = self.answer(id);
        assert!(answer.get("error").is_none(), "{tool}: {answer}");
        answer["result"].clone()
    }

    /// Calls a tool that must succeed; its `structuredContent`.
    pub fn tool(&mut self, tool: &str, arguments: Value) -> Value {
        let result = self.call(tool, arguments);
        assert_ne!(result["isError"], true, "{tool}: {result}");
        result["structuredContent"].clone()
    }

    /// Calls a tool that must fail; the words of its error.
    pub fn tool_error(&mut self, tool: &str, arguments: Value) -> String {
        let result = self.call(tool, arguments);
        assert_eq!(result["isError"], true, "{tool}: {result}");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }

    /// This session's id, by its own `list_peers`.
    pub fn id(&mut self) -> String {
        self.tool("list_peers", json!({"scope": "machine"}))["self"]["id"].as_str().unwrap().to_owned()
    }

    /// The other peers on the machine.
    pub fn peers(&mut self) -> Vec<Value> {
        self.tool("list_peers", json!({"scope": "machine"}))["peers"].as_array().unwrap().clone()
    }

    /// Sends a message; the answer's structured content.
    pub fn send(&mut self, to: &str, text: &str) -> Value {
        self.tool("send_message", json!({"targetPeerId": to, "message": text}))
    }

    /// What `check_messages` gives.
    pub fn check(&mut self) -> Vec<Value> {
        self.tool("check_messages", json!({}))["messages"].as_array().unwrap().clone()
    }

    /// Waits for the next channel push: its params.
    pub fn pushed(&mut self) -> Value {
        let start = Instant::now();
        loop {
            if let Some(push) = self.pushes.pop_front() {
                return push;
            }
            self.read(PATIENCE.saturating_sub(start.elapsed())).unwrap_or_else(|e| panic!("no push: {e}"));
        }
    }

    /// Pushes that have come so far and were not asked for, after a round trip: everything pushed before it is here.
    pub fn pushes_so_far(&mut self) -> Vec<Value> {
        let id = self.ask("ping", json!({}));
        self.answer(id);
        self.pushes.drain(..).collect()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends its standard input, as Claude Code does, and waits for it to end.
    pub fn close(mut self) -> std::process::ExitStatus {
        drop(self.stdin.take());
        self.child.wait().unwrap()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
