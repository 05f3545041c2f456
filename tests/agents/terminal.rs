//! An agent in a terminal: it waits for prompts, and a message can wake it.

use crate::{agents::Interactive, support::eventually, world::World};
use serde_json::Value;
use std::{
    fs,
    process::{Command, Output, Stdio},
};

pub struct Terminal<'a> {
    world: &'a World,
    name: String,
}

impl<'a> Terminal<'a> {
    /// Starts the agent in the directory `name`, and waits until messages can be let into its session.
    pub fn open(world: &'a World, name: &str) -> Self {
        Self::open_with(world, name, &[])
    }

    /// The same, with these arguments.
    pub fn open_with(world: &'a World, name: &str, arguments: &[&str]) -> Self {
        let (terminal, Interactive { ready, first_turn, .. }) =
            (Self::start(world, name, arguments), world.agent.terminal.unwrap());
        // A resumed session shows its last turn.
        terminal.shows(first_turn.filter(|_| !arguments.is_empty()).unwrap_or(ready));
        terminal.begin();
        terminal.reached();
        terminal
    }

    /// Begins the conversation, where a session begins with it.
    fn begin(&self) {
        if let Some(done) = self.world.agent.terminal.unwrap().first_turn {
            self.prompt("Good morning");
            self.shows(done);
        }
    }

    /// Begins a new conversation in place of the one in which `text` was shown. Returns its peer once that is reached.
    pub fn clear(&self, text: &str) -> Value {
        let (Interactive { done, clear, clear_keeps_peer, .. }, old) = (self.world.agent.terminal.unwrap(), self.reached());
        self.shows(done);
        self.prompt(clear);
        self.shows_no_more(text);
        self.shows(self.world.agent.terminal.unwrap().ready);
        self.begin();
        eventually("the new conversation is reached", || {
            let is_it = |peer: &Value| peer["delivery"] == "inbox" && (clear_keeps_peer || peer["id"] != old["id"]);
            self.peers().find(is_it)
        })
    }

    /// Starts an agent without a door, and waits until it takes a prompt and its server is connected.
    pub fn without_door(world: &'a World, name: &str) -> Self {
        let terminal = Self::start(world, name, &[]);
        terminal.shows(world.agent.terminal.unwrap().ready);
        eventually("its server is connected", || terminal.peer());
        terminal
    }

    /// Starts the agent in the directory `name`.
    pub fn start(world: &'a World, name: &str, arguments: &[&str]) -> Self {
        let command = world.interactive();
        let command = command.iter().map(String::as_str).chain(arguments.iter().copied());
        Self::run(world, name, &command.collect::<Vec<_>>())
    }

    /// Runs a command in the directory `name`.
    pub fn run(world: &'a World, name: &str, command: &[&str]) -> Self {
        let directory = world.directory(name);
        let terminal = Self { world, name: name.to_owned() };
        let mut words = vec!["new-session", "-d", "-s", name, "-x", "140", "-y", "40", "-c", directory.to_str().unwrap()];
        let mut env: Vec<String> = world.env().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        env.push(format!("TMUX={},0,0", world.home().join("tmux").display()));
        words.extend(["env", "-i"]);
        words.extend(env.iter().map(String::as_str));
        words.extend(command);
        // The server may be about to end, after its last session.
        eventually("tmux runs the command", || terminal.tmux(&words).status.success().then_some(()));
        terminal
    }

    /// Its entry in the list of peers, if it is connected.
    pub fn peer(&self) -> Option<Value> {
        self.peers().next()
    }

    /// The connected peers in its directory.
    fn peers(&self) -> impl Iterator<Item = Value> {
        let directory = self.world.directory(&self.name);
        let is_it = move |peer: &Value| peer["cwd"] == *directory.to_str().unwrap() && peer["status"] == "connected";
        self.world.broker.peers().into_iter().filter(is_it)
    }

    /// Waits until messages can be let into its session. Returns its entry in the list of peers.
    #[track_caller]
    pub fn reached(&self) -> Value {
        eventually("a door into the session is open", || self.peer().filter(|peer| peer["delivery"] == "inbox"))
    }

    /// Types a text.
    pub fn types(&self, text: &str) {
        self.tmux(&["send-keys", "-t", &self.name, "-l", text]);
        self.shows(text);
    }

    /// Types a line, then presses Enter once the line shows.
    pub fn prompt(&self, line: &str) {
        self.types(line);
        self.keys(&["Enter"]);
    }

    /// Presses keys, given by their tmux names.
    pub fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "-t", &self.name], keys].concat());
    }

    /// Waits until the agent has stored this prompt, if it does so late.
    pub fn stored(&self, prompt: &str) {
        let Some([folder, file]) = self.world.agent.terminal.unwrap().late else { return };
        let sessions = || fs::read_dir(self.world.home().join(folder)).into_iter().flatten().flatten();
        let holds = |session: fs::DirEntry| fs::read_to_string(session.path().join(file)).is_ok_and(|text| text.contains(prompt));
        eventually("the prompt is stored", || sessions().any(holds).then_some(()));
    }

    /// Closes the terminal, as a person does who leaves.
    pub fn close(&self) {
        self.tmux(&["kill-session", "-t", &self.name]);
    }

    /// Kills all processes of the agent, but not our server, which it has started.
    pub fn kill(&self) {
        let first = self.tmux(&["display-message", "-p", "-t", &self.name, "#{pane_pid}"]).stdout;
        let mut killed: Vec<u32> = vec![String::from_utf8(first).unwrap().trim().parse().unwrap()];
        let mut next = 0;
        while let Some(pid) = killed.get(next) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let children = children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap());
            let is_ours =
                |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().contains("claude-peers-mcp");
            killed.extend(children.filter(|pid| !is_ours(pid)).collect::<Vec<_>>());
            next += 1;
        }
        // Some may have ended with the first.
        for pid in killed {
            drop(Command::new("kill").args(["-KILL", &pid.to_string()]).status());
        }
    }

    /// Waits until its screen shows this.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        eventually(&format!("the terminal shows {text:?}"), || self.screen().contains(text).then_some(()));
    }

    /// Waits until its screen does not show this.
    #[track_caller]
    pub fn shows_no_more(&self, text: &str) {
        eventually(&format!("the terminal hides {text:?}"), || (!self.screen().contains(text)).then_some(()));
    }

    /// The text on its screen.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p", "-t", &self.name]).stdout).into_owned()
    }

    /// Runs a tmux command on the same server.
    pub fn tmux(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8").env("TERM", "xterm-256color");
        command.args(["-f", "/dev/null", "-S"]).arg(self.world.home().join("tmux")).args(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}'s screen ---\n{}--- end ---", self.name, self.screen());
        }
        self.tmux(&["kill-session", "-t", &self.name]);
    }
}
