//! Sessions that another program runs, such as an SDK or an editor: prompts and answers are lines of JSON.

use crate::{
    Test,
    support::{PATIENCE, eventually},
    world::World,
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

pub const TESTS: &[(&str, Test)] = &[
    ("embedded::sdk_sees_a_message_between_turns", sdk),
    ("embedded::editor_sees_a_message_between_turns", editor),
    ("embedded::background_session_is_reached", background),
];

/// A running session.
struct Embedded {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<Value>,
}

impl Embedded {
    fn start(world: &World, entry: &str) -> Self {
        let mut command = Command::new(world.home().join(".local/bin/claude"));
        command.args(["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]);
        command.current_dir(world.directory("job")).env_clear().envs(world.env("job")).env("CLAUDE_CODE_ENTRYPOINT", entry);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (tell, lines) = channel();
        thread::spawn(move || {
            let lines = stdout.lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok());
            lines.into_iter().try_for_each(|line| tell.send(line))
        });
        Self { child, stdin, lines }
    }

    fn prompt(&mut self, text: &str) {
        let line = json!({"type": "user", "message": {"role": "user", "content": text}});
        writeln!(self.stdin, "{line}").unwrap();
    }

    /// Waits for the end of a turn.
    fn turn(&self) {
        while self.lines.recv_timeout(PATIENCE).expect("the turn's end")["type"] != "result" {}
    }

    fn end(mut self) {
        drop(self.stdin);
        let status = eventually("it ends", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

fn between(claude: &Path, entry: &str) {
    const TEXT: &str = "The schema changed.";
    let world = World::hooked(claude);
    let mut job = Embedded::start(&world, entry);
    let first = world.model.plan("job", &[("mcp__claude-peers__list_peers", json!({"scope": "machine"}))]);
    job.prompt(&first.cue);
    world.model.request("job", "its peers", |request| request.result(&first.calls[0]).is_some());
    job.turn();
    let id = world.send("job", TEXT);
    let seen = |what: &str| world.model.request("job", what, |request| request.text().contains(TEXT));
    seen("the message wakes it");
    job.turn();
    world.let_in(&id);
    job.prompt("Go on.");
    let request = world.model.request("job", "its next prompt", |request| request.news().contains("Go on."));
    assert_eq!(request.text().matches(TEXT).count(), 1, "{}", request.text());
    job.turn();
    let peer = world.peers().remove(0);
    assert_eq!((&peer["delivery"], &peer["pid"]), (&json!("inbox"), &json!(job.child.id())), "{peer}");
    assert_eq!(world.server_env("CLAUDE_CODE_ENTRYPOINT").as_deref(), Some(entry));
    job.end();
    world.deserted();
    assert_eq!(world.broker().message(&id)["state"], "delivered");
}

fn sdk(claude: &Path) {
    between(claude, "sdk-ts");
}

fn editor(claude: &Path) {
    between(claude, "claude-vscode");
}

fn background(claude: &Path) {
    const TEXT: &str = "The schema changed.";
    let world = World::hooked(claude);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(world.home().join(".local/bin/claude"));
        command.args(arguments).current_dir(world.directory("job")).env_clear().envs(world.env("job"));
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "{arguments:?}: {status}");
    };
    let task = world.model.plan("job", &[("mcp__claude-peers__list_peers", json!({"scope": "machine"}))]);
    run(&["--bg", &task.cue]);
    world.model.request("job", "its peers", |request| request.result(&task.calls[0]).is_some());
    let peer = world.peers().remove(0);
    assert_eq!(peer["delivery"], "inbox", "{peer}");
    let id = world.send(peer["id"].as_str().unwrap(), TEXT);
    let request = world.model.request("job", "the message", |request| request.text().contains(TEXT));
    assert_eq!(request.text().matches(TEXT).count(), 1, "{}", request.text());
    world.let_in(&id);
    run(&["daemon", "stop", "--any"]);
    world.deserted();
    assert_eq!(world.broker().message(&id)["state"], "delivered");
}
