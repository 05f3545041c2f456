//! An interactive session: Claude Code in a terminal.

use crate::{model::Request, support::eventually, world::World};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, sync::Arc};

/// A running session. It ends with its world, if not before.
pub struct Claude<'a> {
    world: &'a World,
    name: String,
    /// The `claude` process.
    pub pid: u32,
}

impl<'a> Claude<'a> {
    /// A session in a directory of its own, ready: its prompt is there and its MCP server connected.
    pub fn start(world: &'a World, name: &str) -> Self {
        Self::with(world, name, &[])
    }

    /// The same, with these arguments.
    pub fn with(world: &'a World, name: &str, arguments: &[&str]) -> Self {
        Self::beside(world, name, name, arguments)
    }

    /// The same, in this directory.
    pub fn beside(world: &'a World, name: &str, directory: &str, arguments: &[&str]) -> Self {
        Self::in_env(world, name, directory, &[], arguments)
    }

    /// The same, with these variables besides.
    pub fn in_env(world: &'a World, name: &str, directory: &str, env: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::run(world, name, directory, env, &[&["claude"], arguments].concat())
    }

    /// The same, in a directory of its own, without permission prompts.
    pub fn bypassing(world: &'a World, name: &str, env: &[(&str, &str)]) -> Self {
        let sandbox = ("IS_SANDBOX", "1"); // lets root do so
        Self::in_env(world, name, name, &[&[sandbox], env].concat(), &["--dangerously-skip-permissions"])
    }

    /// A session in this directory that this command starts.
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

    /// Its peer, if it is connected.
    pub fn peer(&self) -> Option<Value> {
        self.world.peers().into_iter().find(|peer| peer["pid"] == self.pid && peer["status"] == "connected")
    }

    /// Waits until it is reached through its inbox.
    #[track_caller]
    pub fn reached(&self) -> Value {
        eventually(&format!("{}'s inbox is known", self.name), || self.peer().filter(|peer| peer["delivery"] == "inbox"))
    }

    /// Its working directory.
    pub fn directory(&self) -> PathBuf {
        self.world.directory(&self.name)
    }

    /// What it says of itself in its status file: `status`, `sessionId`.
    pub fn status(&self) -> Option<Value> {
        let file: PathBuf = self.world.home().join(format!(".claude/sessions/{}.json", self.pid));
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    /// Waits until it waits for its user.
    #[track_caller]
    pub fn idle(&self) {
        eventually(&format!("{} is idle", self.name), || self.status().filter(|status| status["status"] == "idle"));
    }

    /// The session's id; another one after `/clear`.
    pub fn id(&self) -> String {
        self.status().expect("a running session")["sessionId"].as_str().expect("an id").to_owned()
    }

    /// Types a line, and Enter once it is seen.
    pub fn prompt(&self, line: &str) {
        self.world.tmux(&["send-keys", "-t", &self.name, "-l", line]);
        eventually(&format!("{} shows what is typed: {line}", self.name), || self.screen().contains(line).then_some(()));
        self.keys(&["Enter"]);
    }

    /// Presses these keys, by tmux's names.
    pub fn keys(&self, keys: &[&str]) {
        self.world.tmux(&[&["send-keys", "-t", &self.name], keys].concat());
    }

    /// What its terminal shows.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.world.tmux(&["capture-pane", "-p", "-t", &self.name]).stdout).into_owned()
    }

    /// Has its model call one of our tools; the request that carries the result, and the result. Idle again afterwards.
    #[track_caller]
    pub fn call(&self, tool: &str, input: Value) -> (Arc<Request>, String) {
        let task = self.world.model.plan(&self.name, &[(&format!("mcp__claude-peers__{tool}"), input)]);
        self.prompt(&task.cue);
        let request = self.world.model.request(&self.name, tool, |request| request.result(&task.calls[0]).is_some());
        let result = request.result(&task.calls[0]).unwrap();
        self.idle();
        (request, result)
    }

    /// Has its model send a message; what the tool says.
    #[track_caller]
    pub fn send(&self, to: &str, text: &str) -> Value {
        let (_, said) = self.call("send_message", json!({"targetPeerId": to, "message": text}));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// Waits until its model is shown this text, which stands there once.
    #[track_caller]
    pub fn shown(&self, text: &str) -> Arc<Request> {
        let request = self.world.model.request(&self.name, text, |request| request.news().contains(text));
        assert_eq!(request.text().matches(text).count(), 1, "{}", request.text());
        request
    }

    /// How many of its requests so far brought this text as news.
    pub fn times_shown(&self, text: &str) -> usize {
        self.world.model.requests(&self.name).iter().filter(|request| request.news().contains(text)).count()
    }

    /// Begins a new conversation, which has a new id.
    pub fn clear(&self) {
        self.turn_to("/clear");
    }

    /// Goes on with another conversation, by this command.
    pub fn turn_to(&self, command: &str) {
        let before = self.id();
        self.prompt(command);
        eventually("another conversation", || self.status().filter(|status| status["sessionId"] != before.as_str()));
        self.idle();
    }

    /// Leaves it; waits for its end.
    pub fn exit(self) {
        self.prompt("/exit");
        self.ended();
    }

    /// Ends it by a signal; waits for its end.
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
