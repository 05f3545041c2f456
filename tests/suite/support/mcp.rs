//! A real `claude-peers-mcp`, driven over stdio as Claude Code drives it.

use super::{Broker, PATIENCE, broker::signal, eventually};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

/// The program under test.
pub const SERVER: &str = env!("CARGO_BIN_EXE_claude-peers-mcp");

/// A session: an MCP server process and the client's side of its stdio.
pub struct Session {
    child: Child,
    stdin: Option<Box<dyn Write + Send>>,
    lines: Receiver<Value>,
    pushes: VecDeque<Value>,
    answers: VecDeque<Value>,
    next: u64,
    log: Arc<Mutex<String>>,
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
    /// The command that starts its server.
    pub fn command(&self) -> Command {
        self.environment(Command::new(SERVER))
    }

    /// A command whose process is, by its command line, Claude Code with these start flags. It starts the server as its child,
    /// and when that ends, it starts it again, once for each of the later session ids.
    pub fn under_claude(&self, flags: &[&str], later_ids: &[&str]) -> Command {
        let ids = [&[self.session_id], later_ids].concat().join(" ");
        self.claude(&format!("for id in {ids}; do CLAUDE_CODE_SESSION_ID=$id \"$SERVER\"; done"), flags)
    }

    /// Such a process that runs this script of a shell, in which `$SERVER` is the server.
    pub fn claude(&self, script: &str, flags: &[&str]) -> Command {
        let mut claude = self.environment(Command::new("sh"));
        // The last command is not the server, or the shell would become it.
        claude.arg0("claude").env("SERVER", SERVER).args(["-c", &format!("{script}; true"), "claude"]).args(flags);
        claude
    }

    /// `command`, with the environment of a session's server.
    pub fn environment(&self, mut command: Command) -> Command {
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

    /// Starts the process on two pipes; nothing is said yet.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self::over(child, stdin, stdout)
    }

    /// Starts the process on two sockets, as JavaScript runtimes do; nothing is said yet.
    pub fn spawn_on_sockets(mut command: Command) -> Self {
        let ((to_server, stdin), (from_server, stdout)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        command.stdin(OwnedFd::from(stdin)).stdout(OwnedFd::from(stdout)).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        Self::over(child, to_server, from_server)
    }

    fn over(mut child: Child, stdin: impl Write + Send + 'static, stdout: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        let stderr = child.stderr.take().unwrap();
        // Its log is shown if the test fails.
        let log = Arc::new(Mutex::new(String::new()));
        let logged = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("{line}");
                *logged.lock().unwrap() += &(line + "\n");
            }
        });
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        let stdin: Option<Box<dyn Write + Send>> = Some(Box::new(stdin));
        Self { child, stdin, lines, pushes: VecDeque::new(), answers: VecDeque::new(), next: 1, log }
    }

    /// `server/discover`, `initialize`, `notifications/initialized`, `tools/list`: what Claude Code says. The result of
    /// `initialize`.
    pub fn handshake(&mut self) -> Value {
        let result = self.initialize();
        self.initialized();
        result
    }

    /// Its first half: `server/discover`, `initialize`. The result of the latter.
    pub fn initialize(&mut self) -> Value {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
        let discover = self.ask("server/discover", json!({"_meta": meta}));
        drop(self.answer(discover)); // an error, or revisions; another test looks closer
        let initialize = self.ask(
            "initialize",
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "claude-code", "version": "2.1.330"}}),
        );
        self.answer(initialize)["result"].clone()
    }

    /// Its second half: `notifications/initialized`, `tools/list`.
    pub fn initialized(&mut self) {
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        let tools = self.ask("tools/list", json!({}));
        self.answer(tools);
    }

    /// Writes one message.
    pub fn say(&mut self, message: &Value) {
        self.say_raw(format!("{message}\n"));
    }

    /// Writes these bytes.
    pub fn say_raw(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes.as_ref()).unwrap();
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
        self.answer_to(&json!(id))
    }

    /// Waits for the answer to a request with an id of the test's choice: the whole message.
    pub fn answer_to(&mut self, id: &Value) -> Value {
        let start = Instant::now();
        loop {
            if let Some(at) = self.answers.iter().position(|answer| answer["id"] == *id) {
                return self.answers.remove(at).unwrap();
            }
            self.read(PATIENCE.saturating_sub(start.elapsed())).unwrap_or_else(|e| panic!("no answer to request {id}: {e}"));
        }
    }

    /// The answer to a request, if it stood on its standard output before the last one that was read.
    pub fn answered(&mut self, id: u64) -> Option<Value> {
        let at = self.answers.iter().position(|answer| answer["id"] == id)?;
        self.answers.remove(at)
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

    /// Pushes that stood on its standard output before the last answer that was read.
    pub fn pushes_before(&mut self) -> Vec<Value> {
        self.pushes.drain(..).collect()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process id of the server that this session's `claude` runs right now.
    pub fn server_pid(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        eventually("the claude process runs a server", || {
            let pid = std::fs::read_to_string(&children).unwrap().trim().parse().ok()?;
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
            let is_server = program.file_name()?.to_string_lossy().starts_with("claude-peers-mcp");
            is_server.then_some(pid)
        })
    }

    /// Kills that server; its `claude` starts the next one, which gets its handshake.
    pub fn restart_server(&mut self) {
        let killed = self.server_pid();
        signal(killed, "KILL");
        eventually("the claude process runs another server", || Some(self.server_pid()).filter(|pid| *pid != killed));
        self.handshake();
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends its standard input, as Claude Code does, and waits for it to end.
    pub fn close(mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.wait()
    }

    /// Waits for it to end.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the process ends", || self.child.try_wait().unwrap())
    }

    /// Waits until nobody can write its standard output any more: every process that shares it is gone.
    pub fn hung_up(&mut self) {
        let start = Instant::now();
        while self.read(PATIENCE.saturating_sub(start.elapsed())) != Err(RecvTimeoutError::Disconnected) {
            assert!(start.elapsed() < PATIENCE, "its standard output is still open");
        }
    }
}

impl Session {
    /// Ends its process, if it has not ended.
    pub fn end(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}
