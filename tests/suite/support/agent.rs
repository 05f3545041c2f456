//! An agent process with an inbox like Claude Code's: it runs the real MCP server, records the frames in its inbox, and runs the
//! real prompt hook when told to.

use super::{Broker, Session, eventually, folder, mcp::Start};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// The agent process of a session.
pub struct Agent {
    /// Its MCP server.
    pub session: Session,
    orders: File,
    place: tempfile::TempDir,
    read: Cell<usize>,
    hooks: Cell<u32>,
}

/// A frame that was written into the inbox.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The whole frame.
    pub json: Value,
    /// The text that the model is shown.
    pub content: String,
}

impl Frame {
    /// The ids of its messages, in order.
    pub fn ids(&self) -> Vec<String> {
        let ids = self.content.lines().filter_map(|line| line.strip_prefix("id ")?.split(' ').next());
        ids.map(str::to_owned).collect()
    }

    /// The socket for answers.
    pub fn address(&self) -> PathBuf {
        self.json["from"].as_str().unwrap().strip_prefix("uds:").unwrap().into()
    }
}

impl Agent {
    /// Starts an agent and waits until its server has done the handshake and is connected.
    pub fn start(broker: &Broker, directory: &Path, session_id: &str) -> Self {
        Self::with(broker, directory, session_id, &[], &[])
    }

    /// Like [`Agent::start`], with these start flags and this environment.
    pub fn with(broker: &Broker, directory: &Path, session_id: &str, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let mut agent = Self::launch(broker, directory, session_id, flags, env, &[super::mcp::SERVER]);
        agent.session.handshake();
        agent.session.id(); // answered once it is connected
        agent
    }

    /// Like [`Agent::start`], with its command wrapped into another.
    pub fn wrapped(broker: &Broker, directory: &Path, session_id: &str, wrap: impl FnOnce(Command) -> Command) -> Self {
        let mut agent = Self::spawn(broker, directory, session_id, &[], &[], &[super::mcp::SERVER], wrap);
        agent.session.handshake();
        agent.session.id();
        agent
    }

    /// Starts an agent with `server` as the command of its server, without a handshake.
    pub fn launch(
        broker: &Broker,
        directory: &Path,
        session_id: &str,
        flags: &[&str],
        env: &[(&str, &str)],
        server: &[&str],
    ) -> Self {
        Self::spawn(broker, directory, session_id, flags, env, server, |command| command)
    }

    fn spawn(
        broker: &Broker,
        directory: &Path,
        session_id: &str,
        flags: &[&str],
        env: &[(&str, &str)],
        server: &[&str],
        wrap: impl FnOnce(Command) -> Command,
    ) -> Self {
        let place = folder();
        let pipe = place.path().join("orders");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // Opening only one end would wait for the other.
        let orders = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let start = Start { broker, directory, session_id, delivery: "", env };
        let mut command = start.environment(Command::new("perl"));
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/support/agent.pl")).arg(place.path());
        command.args(flags).arg("--").args(server); // start flags are read from the agent's command line
        let session = Session::spawn(wrap(command));
        Self { session, orders, place, read: Cell::new(0), hooks: Cell::new(0) }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.session.pid()
    }

    /// Its inbox socket.
    pub fn inbox(&self) -> PathBuf {
        self.place.path().join("inbox")
    }

    /// All frames that were not read yet.
    pub fn frames(&self) -> Vec<Frame> {
        let text = fs::read_to_string(self.place.path().join("frames")).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let new: Vec<&str> = whole.skip(self.read.get()).collect();
        self.read.set(self.read.get() + new.len());
        let frame = |line: &str| {
            let json: Value = serde_json::from_str(line).unwrap();
            Frame { content: json["message"]["content"].as_str().unwrap().to_owned(), json }
        };
        new.into_iter().map(frame).collect()
    }

    /// Waits for the next frame.
    pub fn frame(&self) -> Frame {
        eventually("a frame in the inbox", || {
            let before = self.read.get();
            let frame = self.frames().into_iter().next()?;
            self.read.set(before + 1);
            Some(frame)
        })
    }

    /// Lets a frame in as the client does, by running its prompt hook with the frame's text. Waits for the hook to exit.
    pub fn let_in(&self, frame: &Frame) {
        self.prompt(json!({"prompt": frame.content}));
    }

    /// Runs the prompt hook with `more` added to its input, until it exits. It must succeed silently.
    pub fn prompt(&self, more: Value) {
        let mut input = json!({"session_id": "s-1", "hook_event_name": "UserPromptSubmit", "permission_mode": "default"});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (code, said) = self.run_hook("UserPromptSubmit", &input.to_string());
        assert_eq!((code, said.as_str()), (0, ""));
    }

    /// Runs the hook of an event with this input until it exits. Returns its exit code and output.
    pub fn run_hook(&self, event: &str, input: &str) -> (i32, String) {
        let cli = env!("CARGO_BIN_EXE_claude-peers");
        let file = self.run(&format!("'{cli}' hook {event}"), input);
        let code = eventually("the hook ends", || {
            fs::read_to_string(file.with_extension("code")).ok()?.strip_suffix('\n')?.parse().ok()
        });
        (code, fs::read_to_string(file.with_extension("out")).unwrap())
    }

    /// Runs a shell command as the agent's child. Returns the path of its files: `.out` for output, `.code` for the exit code.
    pub fn run(&self, command: &str, input: &str) -> PathBuf {
        self.hooks.set(self.hooks.get() + 1);
        let file = self.place.path().join(format!("run-{}", self.hooks.get()));
        fs::write(file.with_extension("in"), input).unwrap();
        let f = file.display();
        let order = format!("( ( {command} ) <'{f}.in' >'{f}.out' 2>&1; echo $? >'{f}.code' ) &");
        (&self.orders).write_all(format!("{order}\n").as_bytes()).unwrap();
        file
    }
}
