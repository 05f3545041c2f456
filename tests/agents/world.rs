//! A test's own environment: a home in which an agent is set up with our server, a broker and a model.

use crate::{agents::Agent, install, model::Model, support::Broker};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The longest run of an agent, in seconds; it only limits hangs.
const PATIENCE: &str = "60";

/// The environment of a test.
pub struct World {
    agent: &'static Agent,
    program: PathBuf,
    pub broker: Broker,
    pub model: Model,
}

impl World {
    pub fn new(agent: &'static Agent, program: PathBuf) -> Self {
        let world = Self { agent, program, broker: Broker::start(), model: Model::start() };
        world.directory("tmp");
        (agent.configure)(&world);
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
        let arguments = self.agent.terminal.unwrap_or_default();
        [self.program.display().to_string()].into_iter().chain(arguments.iter().map(|word| (*word).to_owned())).collect()
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
