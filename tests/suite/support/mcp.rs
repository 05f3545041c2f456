//! A real `claude-peers-mcp`, driven over stdio like Claude Code does.

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
    /// `CLAUDE_PEERS_DELIVERY`, or empty for the default.
    pub delivery: &'a str,
    pub env: Vec<(String, String)>,
}

impl<'a> Start<'a> {
    /// The command that starts its server.
    pub fn command(&self) -> Command {
        self.environment(Command::new(SERVER))
    }

    /// A command whose command line looks like Claude Code with these start flags. It runs the server as its child, once for each
    /// session id in turn.
    pub fn under_claude(&self, flags: &[&str], later_ids: &[&str]) -> Command {
        let ids = [&[self.session_id], later_ids].concat().join(" ");
        self.claude(&format!("for id in {ids}; do CLAUDE_CODE_SESSION_ID=$id \"$SERVER\"; done"), flags)
    }

    /// The same for a shell script, in which `$SERVER` is the server.
    pub fn claude(&self, script: &str, flags: &[&str]) -> Command {
        let mut claude = self.environment(Command::new("sh"));
        // The server must not be the last command, or the shell would become it.
        claude.arg0("claude").env("SERVER", SERVER).args(["-c", &format!("{script}; true"), "claude"]).args(flags);
        claude
    }

    /// Gives `command` the environment of a session's server.
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

    /// Starts the server and does the whole handshake.
    pub fn go(self) -> Session {
        let mut session = Session::spawn(self.command());
        session.handshake();
        session
    }
}

impl Session {
    /// Starts a session with an open channel.
    pub fn start(broker: &Broker, directory: &Path, session_id: &str) -> Self {
        Start { broker, directory, session_id, delivery: "channel", env: Vec::new() }.go()
    }

    /// Starts a session without channel, whose mail comes with tool results.
    pub fn pulling(broker: &Broker, directory: &Path, session_id: &str) -> Self {
        Start { broker, directory, session_id, delivery: "pull", env: Vec::new() }.go()
    }

    /// Starts the process on two pipes, without a handshake.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self::over(child, stdin, stdout)
    }

    /// Starts the process on two sockets, as JavaScript runtimes do, without a handshake.
    pub fn spawn_on_sockets(mut command: Command) -> Self {
        let ((to_server, stdin), (from_server, stdout)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        command.stdin(OwnedFd::from(stdin)).stdout(OwnedFd::from(stdout)).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        Self::over(child, to_server, from_server)
    }

    fn over(mut child: Child, stdin: impl Write + Send + 'static, stdout: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        let stderr = child.stderr.take().unwrap();
        // The test harness shows this log if the test fails.
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

    /// Sends `server/discover`, `initialize`, `notifications/initialized` and `tools/list`, as Claude Code does. Returns the result
    /// of `initialize`.
    pub fn handshake(&mut self) -> Value {
        let result = self.initialize();
        self.initialized();
        result
    }

    /// The first half of the handshake: `server/discover` and `initialize`, whose result it returns.
    pub fn initialize(&mut self) -> Value {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
        let discover = self.ask("server/discover", json!({"_meta": meta}));
        drop(self.answer(discover)); // another test checks this answer
        let initialize = self.ask(
            "initialize",
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "claude-code", "version": "2.1.330"}}),
        );
        self.answer(initialize)["result"].clone()
    }

    /// The whole handshake as another client does it, under this name. Returns the result of `initialize` and the list of tools.
    pub fn handshake_as(&mut self, client: &str) -> (Value, Value) {
        let client = json!({"name": client, "version": "1.0"});
        let initialize =
            self.ask("initialize", json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}));
        let opened = self.answer(initialize)["result"].clone();
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        let list = self.ask("tools/list", json!({}));
        (opened, self.answer(list)["result"]["tools"].clone())
    }

    /// The second half of the handshake: `notifications/initialized` and `tools/list`.
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

    /// Writes a request and returns its id.
    pub fn ask(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next;
        self.next += 1;
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// Waits for the answer to a request and returns the whole message.
    pub fn answer(&mut self, id: u64) -> Value {
        self.answer_to(&json!(id))
    }

    /// Like [`Session::answer`], for an id of any type.
    pub fn answer_to(&mut self, id: &Value) -> Value {
        let start = Instant::now();
        loop {
            if let Some(at) = self.answers.iter().position(|answer| answer["id"] == *id) {
                return self.answers.remove(at).unwrap();
            }
            self.read(PATIENCE.saturating_sub(start.elapsed())).unwrap_or_else(|e| panic!("no answer to request {id}: {e}"));
        }
    }

    /// The answer to a request, if it has been read already.
    pub fn answered(&mut self, id: u64) -> Option<Value> {
        let at = self.answers.iter().position(|answer| answer["id"] == id)?;
        self.answers.remove(at)
    }

    /// The next line of its output in the order of writing, or `None` once the output is closed. Lines that another method has read
    /// are not among them.
    pub fn next_line(&mut self) -> Option<Value> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("process {} writes nothing more", self.pid()),
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

    /// Calls a tool and returns the result, even if it is an error.
    pub fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let id = self.ask("tools/call", json!({"name": tool, "arguments": arguments}));
        let answer = self.answer(id);
        assert!(answer.get("error").is_none(), "{tool}: {answer}");
        answer["result"].clone()
    }

    /// Calls a tool that must succeed and returns its `structuredContent`.
    pub fn tool(&mut self, tool: &str, arguments: Value) -> Value {
        let result = self.call(tool, arguments);
        assert_ne!(result["isError"], true, "{tool}: {result}");
        result["structuredContent"].clone()
    }

    /// Calls a tool that must fail and returns the text of its error.
    pub fn tool_error(&mut self, tool: &str, arguments: Value) -> String {
        let result = self.call(tool, arguments);
        assert_eq!(result["isError"], true, "{tool}: {result}");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }

    /// The result of `list_peers` for the whole machine.
    pub fn list(&mut self) -> Value {
        self.tool("list_peers", json!({"scope": "machine"}))
    }

    /// This session's id, from its own `list_peers`.
    pub fn id(&mut self) -> String {
        self.list()["self"]["id"].as_str().unwrap().to_owned()
    }

    /// The other peers on the machine.
    pub fn peers(&mut self) -> Vec<Value> {
        self.list()["peers"].as_array().unwrap().clone()
    }

    /// Sends a message and returns the receipt.
    pub fn send(&mut self, to: &str, text: &str) -> Value {
        self.tool("send_message", json!({"targetPeerId": to, "message": text}))
    }

    /// The messages that `check_messages` returns.
    pub fn check(&mut self) -> Vec<Value> {
        self.tool("check_messages", json!({}))["messages"].as_array().unwrap().clone()
    }

    /// Waits for the next channel push and returns its params.
    pub fn pushed(&mut self) -> Value {
        let start = Instant::now();
        loop {
            if let Some(push) = self.pushes.pop_front() {
                return push;
            }
            self.read(PATIENCE.saturating_sub(start.elapsed())).unwrap_or_else(|e| panic!("no push: {e}"));
        }
    }

    /// All unread pushes, after a round trip that makes sure that earlier pushes have arrived.
    pub fn pushes_so_far(&mut self) -> Vec<Value> {
        let id = self.ask("ping", json!({}));
        self.answer(id);
        self.pushes.drain(..).collect()
    }

    /// All unread pushes that came before the last answer.
    pub fn pushes_before(&mut self) -> Vec<Value> {
        self.pushes.drain(..).collect()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process id of the server that this session's `claude` process currently runs.
    pub fn server_pid(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        eventually("the claude process runs a server", || {
            let children = std::fs::read_to_string(&children).unwrap();
            children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid| is_server(*pid))
        })
    }

    /// Kills that server and does the handshake with the next one, which its `claude` process starts.
    pub fn restart_server(&mut self) {
        let killed = self.server_pid();
        signal(killed, "KILL");
        eventually("the claude process runs another server", || Some(self.server_pid()).filter(|pid| *pid != killed));
        self.handshake();
    }

    /// Kills the process with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Closes its standard input, as Claude Code does, and waits for it to exit.
    pub fn close(mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.wait()
    }

    /// Waits for it to exit.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the process ends", || self.child.try_wait().unwrap())
    }

    /// Waits until every process that shares its standard output has ended.
    pub fn hung_up(&mut self) {
        let start = Instant::now();
        while self.read(PATIENCE.saturating_sub(start.elapsed())) != Err(RecvTimeoutError::Disconnected) {
            assert!(start.elapsed() < PATIENCE, "its standard output is still open");
        }
    }
}

/// Whether this process is a server.
fn is_server(pid: u32) -> bool {
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("claude-peers-mcp"))
}

impl Session {
    /// Kills the process unless it has exited.
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
