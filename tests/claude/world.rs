//! A test's own environment: a home with our MCP server registered, a broker, a model and a terminal multiplexer.

use crate::{
    model::Model,
    support::{Broker, eventually},
};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The API key of every session. It is not a real one.
const KEY: &str = "sk-ant-api03-claude-peers-test-0000000000000000";

/// The environment of a test. Dropping it ends all its processes and removes its files.
pub struct World {
    broker: Mutex<Broker>,
    home: PathBuf,
    /// The stand-in model that all sessions use.
    pub model: Model,
}

impl World {
    /// A world in which our MCP server is registered the way users register it.
    pub fn new(claude: &Path) -> Self {
        Self::with(claude, &json!({}))
    }

    /// Like [`World::new`], with the hook that `claude-peers setup` installs.
    pub fn hooked(claude: &Path) -> Self {
        let world = Self::new(claude);
        let output = world.broker().cli(&["setup"]).output().unwrap();
        // It may fail for lack of a service manager, which does not matter here.
        let said = String::from_utf8_lossy(&output.stdout);
        let installed = |line: &str| line.split_whitespace().take(2).eq(["done", "hooks"]);
        assert!(said.lines().any(installed), "{output:?}");
        world
    }

    /// Like [`World::new`], with these hooks in the user's settings.
    pub fn with(claude: &Path, hooks: &Value) -> Self {
        let world = Self::bare(claude, hooks);
        let output = world.broker().cli(&["setup", "--register-only"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        world
    }

    /// Adds our plugin the way users install it, with the programs outside of every session's `PATH`.
    pub fn plugged(self) -> Self {
        let programs = self.home().join(".cargo/bin");
        fs::create_dir_all(&programs).unwrap();
        symlink(env!("CARGO_BIN_EXE_claude-peers"), programs.join("claude-peers")).unwrap();
        symlink(env!("CARGO_BIN_EXE_claude-peers-mcp"), programs.join("claude-peers-mcp")).unwrap();
        self.claude(&["plugin", "marketplace", "add", concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/plugin")]);
        self.claude(&["plugin", "install", "peers@claude-peers"]);
        self
    }

    /// A world in which our MCP server is not registered, with these hooks in the user's settings.
    pub fn bare(claude: &Path, hooks: &Value) -> Self {
        let broker = Broker::start();
        let home = broker.folder().to_owned();
        let world = Self { broker: Mutex::new(broker), home, model: Model::start() };
        for folder in [".local/bin", ".claude", "tmp", "work"] {
            fs::create_dir_all(world.home().join(folder)).unwrap();
        }
        symlink(claude, world.home().join(".local/bin/claude")).unwrap();
        let state = json!({
            "hasCompletedOnboarding": true, "theme": "dark",
            "customApiKeyResponses": {"approved": [&KEY[KEY.len() - 20..]], "rejected": []},
            "projects": {world.home().join("work").to_str().unwrap(): {"hasTrustDialogAccepted": true}},
        });
        fs::write(world.home().join(".claude.json"), state.to_string()).unwrap();
        let permissions = json!({"allow": ["mcp__claude-peers", "mcp__plugin_peers_claude-peers"], "disableAutoMode": "disable"});
        let settings = json!({"permissions": permissions, "hooks": hooks});
        fs::write(world.home().join(".claude/settings.json"), settings.to_string()).unwrap();
        world
    }

    /// Changes one of the user's settings.
    pub fn set(&self, name: &str, value: &Value) {
        self.change(".claude/settings.json", |settings| settings[name] = value.clone());
    }

    /// Marks a repository as trusted. Trust in its parent directories does not cover it.
    pub fn trust(&self, repository: &Path) {
        let yes = json!({"hasTrustDialogAccepted": true});
        self.change(".claude.json", |state| state["projects"][repository.to_str().unwrap()] = yes);
    }

    /// Changes a file of JSON in the home directory.
    pub fn change(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let file = self.home().join(file);
        let mut value: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut value);
        fs::write(file, value.to_string()).unwrap();
    }

    /// The home directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The broker, whose folder is the home directory.
    pub fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A directory that the user trusts, created if missing.
    pub fn directory(&self, name: &str) -> PathBuf {
        let directory = self.home().join("work").join(name);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    /// The environment of a session; `name` identifies it to the model.
    pub fn env(&self, name: &str) -> Vec<(String, String)> {
        let home = self.home().display();
        let ours = [
            ("HOME", home.to_string()),
            ("PATH", format!("{home}/.local/bin:/usr/local/bin:/usr/bin:/bin")),
            ("TMPDIR", format!("{home}/tmp")),
            ("TERM", "xterm-256color".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("ANTHROPIC_BASE_URL", self.model.url(name)),
            ("ANTHROPIC_API_KEY", KEY.to_owned()),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        ];
        ours.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(self.broker().env()).collect()
    }

    /// A `claude` command.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.home().join(".local/bin/claude"));
        command.args(arguments).current_dir(self.home()).env_clear().envs(self.env("command")).stdin(Stdio::null());
        command
    }

    /// Runs a `claude` command and returns its output.
    pub fn claude(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `claude -p` with more arguments in the session's own directory and waits for it to exit.
    pub fn print(&self, name: &str, prompt: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("timeout"); // a run that waits for a hook would never end
        command.arg("60").arg(self.home().join(".local/bin/claude"));
        command.args(["-p", prompt, "--output-format", "stream-json", "--verbose"]).args(arguments);
        command.current_dir(self.directory(name)).env_clear().envs(self.env(name)).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a tmux command: one server, one terminal per session.
    pub fn tmux(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8").env("TERM", "xterm-256color");
        command.args(["-f", "/dev/null", "-S"]).arg(self.home().join("tmux")).args(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// The peers that the broker lists.
    pub fn peers(&self) -> Vec<Value> {
        self.broker().peers()
    }

    /// All processes that the sessions of this world started, except the broker.
    pub fn processes(&self) -> Vec<String> {
        let home = format!("HOME={}", self.home().display());
        let broker = self.broker().pid();
        let of_session = |process: fs::DirEntry| {
            let pid = process.file_name().to_str()?.parse::<u32>().ok().filter(|pid| *pid != broker)?;
            let environment = fs::read(process.path().join("environ")).ok()?;
            environment.split(|byte| *byte == 0).find(|entry| *entry == home.as_bytes())?;
            let line = fs::read(process.path().join("cmdline")).ok().filter(|line| !line.is_empty())?;
            Some(format!("{pid} {}", String::from_utf8_lossy(&line).replace('\0', " ")))
        };
        fs::read_dir("/proc").unwrap().filter_map(|process| of_session(process.ok()?)).collect()
    }

    /// The client's transcript of a conversation so far.
    pub fn transcript(&self, session: &str) -> Option<String> {
        let projects = fs::read_dir(self.home().join(".claude/projects")).ok()?;
        projects.filter_map(|project| fs::read_to_string(project.ok()?.path().join(format!("{session}.jsonl"))).ok()).next()
    }

    /// The process id of our only MCP server.
    pub fn server(&self) -> u32 {
        let processes = self.processes();
        let ours: Vec<&String> = processes.iter().filter(|process| process.contains("claude-peers-mcp")).collect();
        assert_eq!(ours.len(), 1, "{processes:?}");
        ours[0].split(' ').next().unwrap().parse().unwrap()
    }

    /// A variable in the environment of our only MCP server.
    pub fn server_env(&self, name: &str) -> Option<String> {
        let environment = fs::read_to_string(format!("/proc/{}/environ", self.server())).unwrap();
        environment.split('\0').find_map(|entry| entry.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    }

    /// The agent process, known by its status file, that is `ancestor` or one of its descendants.
    pub fn agent_under(&self, ancestor: u32) -> Option<u32> {
        let files = fs::read_dir(self.home().join(".claude/sessions")).ok()?;
        let mut agents = files.filter_map(|file| file.ok()?.path().file_stem()?.to_str()?.parse().ok());
        agents.find(|agent| std::iter::successors(Some(*agent), |pid| parent(*pid)).any(|pid| pid == ancestor))
    }

    /// Waits until a message is delivered through the inbox.
    #[track_caller]
    pub fn let_in(&self, id: &Value) {
        assert_eq!(self.broker().message_once("delivered", id)["route"], "inbox");
    }

    /// Sends a message from the command line and returns its id.
    pub fn send(&self, to: &str, text: &str) -> Value {
        let (code, receipt) = self.broker().cli_json(&["send", to, text]);
        assert_eq!(code, 0, "{receipt}");
        receipt["messageId"].clone()
    }

    /// Waits until all processes of all sessions have ended.
    pub fn deserted(&self) {
        eventually("no process of a session is left", || self.processes().is_empty().then_some(()));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
        if !std::thread::panicking() {
            return self.deserted();
        }
        // Remaining processes would write into the folder while it is removed.
        for process in self.processes() {
            eprintln!("still there: {process}");
            let pid = process.split(' ').next().unwrap_or_default();
            drop(Command::new("kill").args(["-KILL", pid]).status());
        }
    }
}

/// The parent of a running process.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
