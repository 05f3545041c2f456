//! An interactive session: Claude Code in a terminal.

use crate::{model::Request, support::eventually, world::World};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, sync::Arc};

/// A running session. It ends with its world at the latest.
pub struct Claude<'a> {
    world: &'a World,
    name: String,
    /// The `claude` process.
    pub pid: u32,
}

impl<'a> Claude<'a> {
    /// Starts a session in its own directory and waits until it shows its prompt and its MCP server is connected.
    pub fn start(world: &'a World, name: &str) -> Self {
        Self::with(world, name, &[])
    }

    /// Like [`Claude::start`], with these arguments.
    pub fn with(world: &'a World, name: &str, arguments: &[&str]) -> Self {
        Self::beside(world, name, name, arguments)
    }

    /// Like [`Claude::with`], in this directory.
    pub fn beside(world: &'a World, name: &str, directory: &str, arguments: &[&str]) -> Self {
        Self::in_env(world, name, directory, &[], arguments)
    }

    /// Like [`Claude::beside`], with more environment variables.
    pub fn in_env(world: &'a World, name: &str, directory: &str, env: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::run(world, name, directory, env, &[&["claude"], arguments].concat())
    }

    /// Starts a session that bypasses permission prompts in its own directory.
    pub fn bypassing(world: &'a World, name: &str, env: &[(&str, &str)]) -> Self {
        let sandbox = ("IS_SANDBOX", "1"); // allows this for root
        Self::in_env(world, name, name, &[&[sandbox], env].concat(), &["--dangerously-skip-permissions"])
    }

    /// Starts a session in this directory with this command.
    pub fn run(world: &'a World, name: &str, directory: &str, env: &[(&str, &str)], command: &[&str]) -> Self {
        let directory = world.directory(directory);
        let mut env: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        env.extend(world.env(name).iter().map(|(name, value)| format!("{name}={value}")));
        let mut words = vec!["new-session", "-d", "-P", "-F", "#{pane_pid}", "-s", name, "-x", "140", "-y", "40", "-c"];
        words.extend([directory.to_str().unwrap(), "env", "-i"]);
        words.extend(env.iter().map(String::as_str));
        words.extend(command);
        let output = world.tmux(&words);
        assert!(output.status.success(), "{output:?}");
        let pid = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        let mut session = Self { world, name: name.to_owned(), pid };
        session.pid = eventually(&format!("{name} runs"), || world.agent_under(pid));
        session.idle();
        eventually(&format!("{name}'s MCP server is connected"), || session.peer());
        session
    }

    /// Its entry in the list of peers, if it is connected.
    pub fn peer(&self) -> Option<Value> {
        self.world.peers().into_iter().find(|peer| peer["pid"] == self.pid && peer["status"] == "connected")
    }

    /// Waits until its route is the inbox. Returns its entry in the list of peers.
    #[track_caller]
    pub fn reached(&self) -> Value {
        eventually(&format!("{}'s inbox is known", self.name), || self.peer().filter(|peer| peer["delivery"] == "inbox"))
    }

    /// Its working directory.
    pub fn directory(&self) -> PathBuf {
        self.world.directory(&self.name)
    }

    /// Its status file, with `status` and `sessionId`.
    pub fn status(&self) -> Option<Value> {
        let file: PathBuf = self.world.home().join(format!(".claude/sessions/{}.json", self.pid));
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    /// Waits until the session is idle.
    #[track_caller]
    pub fn idle(&self) {
        eventually(&format!("{} is idle", self.name), || self.status().filter(|status| status["status"] == "idle"));
    }

    /// The session's id, which `/clear` changes.
    pub fn id(&self) -> String {
        self.status().expect("a running session")["sessionId"].as_str().expect("an id").to_owned()
    }

    /// Types a line, then presses Enter once the line shows.
    pub fn prompt(&self, line: &str) {
        self.world.tmux(&["send-keys", "-t", &self.name, "-l", line]);
        eventually(&format!("{} shows what is typed: {line}", self.name), || self.screen().contains(line).then_some(()));
        self.keys(&["Enter"]);
    }

    /// Presses keys, given by their tmux names.
    pub fn keys(&self, keys: &[&str]) {
        self.world.tmux(&[&["send-keys", "-t", &self.name], keys].concat());
    }

    /// The text on its terminal.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.world.tmux(&["capture-pane", "-p", "-t", &self.name]).stdout).into_owned()
    }

    /// Has its model call one of our tools and waits for the end of the turn. Returns the request with the result, and the result.
    #[track_caller]
    pub fn call(&self, tool: &str, input: Value) -> (Arc<Request>, String) {
        let task = self.world.model.plan(&self.name, &[(&format!("mcp__claude-peers__{tool}"), input)]);
        self.prompt(&task.cue);
        let request = self.world.model.request(&self.name, tool, |request| request.result(&task.calls[0]).is_some());
        let result = request.result(&task.calls[0]).unwrap();
        self.idle();
        (request, result)
    }

    /// Has its model send a message and returns the tool's result.
    #[track_caller]
    pub fn send(&self, to: &str, text: &str) -> Value {
        let (_, said) = self.call("send_message", json!({"targetPeerId": to, "message": text}));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// Waits until its model is shown this text, exactly once.
    #[track_caller]
    pub fn shown(&self, text: &str) -> Arc<Request> {
        let request = self.world.model.request(&self.name, text, |request| request.news().contains(text));
        assert_eq!(request.text().matches(text).count(), 1, "{}", request.text());
        request
    }

    /// How many of its requests so far contain this text as new.
    pub fn times_shown(&self, text: &str) -> usize {
        self.world.model.requests(&self.name).iter().filter(|request| request.news().contains(text)).count()
    }

    /// Waits until a message with this text is delivered through its inbox and checks that it was shown once.
    #[track_caller]
    pub fn lets_in(&self, id: &Value, text: &str) {
        self.shown(text);
        self.idle();
        self.world.let_in(id);
        assert_eq!(self.times_shown(text), 1);
    }

    /// Sends it a message in the middle of a turn and waits until the message is written into its inbox. Returns the message's id,
    /// and the cue to release so that the turn goes on.
    #[track_caller]
    pub fn offered_in_a_turn(&self, text: &str) -> (Value, String) {
        let peer = self.reached()["id"].clone();
        let task = self.world.model.plan(&self.name, &[("ToolSearch", json!({"query": "select:WebFetch"}))]);
        self.world.model.hold(&task.cue);
        self.prompt(&task.cue);
        self.world.model.request(&self.name, "its first", |request| request.news().contains(&task.cue));
        let id = self.world.send(peer.as_str().unwrap(), text);
        self.world.broker().message_once("offered", &id);
        (id, task.cue)
    }

    /// Begins a new conversation with a new id.
    pub fn clear(&self) {
        self.turn_to("/clear");
    }

    /// Switches to another conversation with this command.
    pub fn turn_to(&self, command: &str) {
        let before = self.id();
        self.prompt(command);
        eventually("another conversation", || self.status().filter(|status| status["sessionId"] != before.as_str()));
        self.idle();
    }

    /// Types `/exit` and waits for the session to end.
    pub fn exit(self) {
        self.prompt("/exit");
        self.ended();
    }

    /// Sends a signal and waits for the session to end.
    pub fn kill(self, signal: &str) {
        crate::support::broker::signal(self.pid, signal);
        self.ended();
    }

    fn ended(&self) {
        let target = format!("={}", self.name);
        eventually("the terminal is gone", || (!self.world.tmux(&["has-session", "-t", &target]).status.success()).then_some(()));
    }
}

impl Drop for Claude<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}'s screen ---\n{}--- end ---", self.name, self.screen());
        }
    }
}
