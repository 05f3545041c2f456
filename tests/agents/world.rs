//! A test's own environment: a home in which an agent is set up with our server, a broker and a model.

use crate::{
    agents::{Agent, words},
    install,
    model::Model,
    support::Broker,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The longest run of an agent, in seconds; it only limits hangs.
const PATIENCE: &str = "60";

/// The environment of a test.
pub struct World {
    pub agent: &'static Agent,
    pub program: PathBuf,
    pub broker: Broker,
    pub model: Model,
}

impl World {
    pub fn new(agent: &'static Agent, program: PathBuf) -> Self {
        // The sessions of these tests write faster than a model does.
        Self::with(Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]), agent, program)
    }

    /// Another agent with a model of its own, in the home of `first`.
    pub fn beside(first: &Self, agent: &'static Agent, program: PathBuf) -> Self {
        Self::with(first.broker.shared(), agent, program)
    }

    fn with(broker: Broker, agent: &'static Agent, program: PathBuf) -> Self {
        let world = Self { agent, program, broker, model: Model::start() };
        world.directory("tmp");
        (agent.configure)(&world);
        if !agent.files.is_empty() {
            let steps = world.setup(&[]);
            assert!(!steps.is_empty() && steps.iter().all(|(state, _)| state == "done"), "{steps:?}");
        }
        world
    }

    /// The home directory, which is the broker's folder.
    pub fn home(&self) -> &Path {
        self.broker.folder()
    }

    /// A directory in the home directory.
    pub fn directory(&self, name: &str) -> PathBuf {
        let directory = self.home().join(name);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    /// The environment of the agent.
    pub fn env(&self) -> Vec<(String, String)> {
        let path = format!("{}:{}", install::node().display(), std::env::var("PATH").unwrap());
        let (home, tmp) = (self.home().display().to_string(), self.home().join("tmp").display().to_string());
        let fixed = [("HOME", &*home), ("TMPDIR", &tmp), ("PATH", &path), ("TERM", "xterm-256color"), ("LANG", "C.UTF-8")];
        let of_agent = (self.agent.env)(self).into_iter().map(|(name, value)| (name.to_owned(), value));
        let fixed = fixed.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.broker.env().into_iter().chain(of_agent).chain(fixed).collect()
    }

    /// The command that runs the agent in a terminal.
    pub fn interactive(&self) -> Vec<String> {
        let arguments = self.agent.terminal.map(|terminal| terminal.arguments).unwrap_or_default();
        [self.program.display().to_string()].into_iter().chain(words(arguments)).collect()
    }

    /// Runs `claude-peers setup` for the agent. Returns its steps there, each with its state and words.
    pub fn setup(&self, arguments: &[&str]) -> Vec<(String, String)> {
        let report = self.ask(&[&["setup", "--agent", self.agent.name], arguments].concat());
        self.rows(&report["steps"], "step", self.agent.name)
    }

    /// What `claude-peers doctor` finds about the agent: the state and the words.
    pub fn doctor(&self) -> (String, String) {
        let report = self.ask(&["doctor"]);
        let rows = self.rows(&report["checks"], "check", "agents");
        assert_eq!(rows.len(), 1, "the agent is the only one: {rows:?}");
        rows[0].clone()
    }

    /// The rows of a report with this name, each with its state and words.
    fn rows(&self, all: &Value, key: &str, name: &str) -> Vec<(String, String)> {
        let rows = all.as_array().unwrap().iter().filter(|row| row[key] == name);
        rows.map(|row| (row["state"].as_str().unwrap().to_owned(), format!("{}; {}", row["what"], row["help"]))).collect()
    }

    /// Runs our command line, where no service manager is found and the agent is the only one on `PATH`.
    fn ask(&self, arguments: &[&str]) -> Value {
        let path = format!("{}:{}:/usr/bin:/bin", self.program.parent().unwrap().display(), install::node().display());
        let mut command = self.broker.cli(arguments);
        command.envs(self.env()).env("PATH", path).env("XDG_RUNTIME_DIR", self.directory("runtime"));
        let output = command.arg("--json").current_dir(self.directory("work")).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output:?}"))
    }

    /// Whether a file in the home directory names our programs.
    pub fn names_us(&self, file: &str) -> bool {
        fs::read_to_string(self.home().join(file))
            .is_ok_and(|text| text.replace(self.home().to_str().unwrap(), "").contains("claude-peers"))
    }

    /// Runs the agent with these arguments. Returns its output.
    pub fn run(&self, arguments: &[String]) -> String {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE).arg(&self.program).args(arguments).env_clear().envs(self.env());
        command.current_dir(self.directory("work"));
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}: {said}", output.status);
        said
    }

    /// Runs a prompt, in the last session or in a new one.
    pub fn prompt(&self, resumes: bool) -> String {
        self.run(&(self.agent.prompt)("Please call the tools.", resumes))
    }
}
