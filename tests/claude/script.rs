//! `claude -p` and other scripted sessions exit as they would without us and get the mail that arrives while they run.

use crate::{Test, world::World};
use serde_json::{Value, json};
use std::path::Path;

pub const TESTS: &[(&str, Test)] = &[
    ("script::next_result_carries_mail_that_came_meanwhile", working),
    ("script::mail_waiting_at_the_end_is_let_in", same),
    ("script::mail_during_its_last_words_is_kept", late),
    ("script::bare_script_gets_mail_with_tool_results", bare),
];

/// Runs a session with one tool call until it exits. Returns its session id and the new text of each request to its model.
fn run(world: &World, arguments: &[&str]) -> (String, Vec<String>) {
    let before = world.model.requests("job").len();
    let task = world.model.plan("job", &[("mcp__claude-peers__list_peers", json!({"scope": "machine"}))]);
    let output = world.print("job", &task.cue, arguments);
    assert!(output.status.success(), "{output:?}");
    world.deserted();
    let lines = String::from_utf8(output.stdout).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let requests = world.model.requests("job").split_off(before);
    (first["session_id"].as_str().unwrap().to_owned(), requests.iter().map(|request| request.news()).collect())
}

fn working(claude: &Path) {
    let world = World::hooked(claude);
    // Nothing tells when Claude Code has read its inbox. The result of one call may come too early, but not those of five.
    let calls = [(); 5].map(|()| ("mcp__claude-peers__list_peers", json!({"scope": "machine"})));
    let task = world.model.plan("job", &calls);
    world.model.hold(&task.cue);
    let (message, output) = std::thread::scope(|scope| {
        let job = scope.spawn(|| world.print("job", &task.cue, &[]));
        world.model.request("job", "its first", |request| request.news().contains(&task.cue));
        let message = world.send("job", "Stop: the schema changed.");
        world.broker().message_once("offered", &message);
        world.model.release(&task.cue);
        (message, job.join().unwrap())
    });
    assert!(output.status.success(), "{output:?}");
    world.let_in(&message);
    let last = world.model.requests("job").pop().unwrap();
    assert_eq!(last.text().matches("Stop: the schema changed.").count(), 1, "{}", last.text());
    world.deserted();
}

fn same(claude: &Path) {
    for world in [World::new(claude), World::hooked(claude)] {
        let (session, requests) = run(&world, &[]);
        assert_eq!(requests.len(), 2, "{requests:#?}");
        world.send("job", "For your return.");
        let (_, requests) = run(&world, &["--resume", &session]);
        let shown = requests.iter().map(|news| news.matches("For your return.").count());
        assert_eq!(shown.sum::<usize>(), 1, "{requests:#?}");
    }
}

fn late(claude: &Path) {
    let world = World::hooked(claude);
    let cue = "These are your last words.";
    world.model.hold(cue);
    let (message, output) = std::thread::scope(|scope| {
        let job = scope.spawn(|| world.print("job", cue, &[]));
        world.model.request("job", "its only one", |request| request.news().contains(cue));
        let message = world.send("job", "Wait!");
        world.broker().message_once("offered", &message);
        world.model.release(cue);
        (message, job.join().unwrap())
    });
    assert!(output.status.success(), "{output:?}");
    world.deserted();
    // It was either shown in a turn of its own or waits for the session to return. It counts as delivered only if it was shown.
    let shown = world.model.requests("job").iter().any(|request| request.text().contains("Wait!"));
    let state = world.broker().message(&message)["state"].clone();
    assert_eq!(state == "delivered", shown, "{state}");
}

fn bare(claude: &Path) {
    let world = World::hooked(claude);
    let config = json!({"mcpServers": {"claude-peers": {"command": env!("CARGO_BIN_EXE_claude-peers-mcp")}}}).to_string();
    let task = world.model.plan("job", &[("mcp__claude-peers__list_peers", json!({"scope": "machine"}))]);
    world.model.hold(&task.cue);
    let arguments = ["--bare", "--mcp-config", &config, "--allowedTools", "mcp__claude-peers__list_peers"];
    let (message, output) = std::thread::scope(|scope| {
        let job = scope.spawn(|| world.print("job", &task.cue, &arguments));
        world.model.request("job", "its first", |request| request.news().contains(&task.cue));
        assert_eq!(world.peers()[0]["delivery"], "pull", "{:?}", world.peers());
        let message = world.send("job", "Stop: the schema changed.");
        world.model.release(&task.cue);
        (message, job.join().unwrap())
    });
    assert!(output.status.success(), "{output:?}");
    assert_eq!(world.broker().message_once("delivered", &message)["route"], "tool_result");
    world.deserted();
}
