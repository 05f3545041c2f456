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
        for folder in ["tmp", "work"] {
            fs::create_dir(world.home().join(folder)).unwrap();
        }
        (agent.configure)(&world);
        world
    }

    /// The home directory, which is the broker's folder.
    pub fn home(&self) -> &Path {
        self.broker.folder()
    }

    /// Runs the agent with these arguments. Returns its output.
    pub fn run(&self, arguments: &[String]) -> String {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE).arg(&self.program).args(arguments).env_clear().envs(self.broker.env()).envs((self.agent.env)(self));
        command.env("HOME", self.home()).env("TMPDIR", self.home().join("tmp")).current_dir(self.home().join("work"));
        let path = format!("{}:{}", install::node().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("TERM", "xterm-256color").env("LANG", "C.UTF-8");
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
