//! `claude -p` with our hooks: it ends as it would without them.

use crate::{Test, world::World};
use serde_json::{Value, json};
use std::path::Path;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("script::it_asks_its_model_no_more_with_hooks_than_without_whether_mail_waits_or_not", same),
    ("script::what_comes_with_its_last_words_waits_for_its_return", late),
];

/// Runs it, with a turn of one tool call, to its end: its session, and what its model was asked.
fn run(world: &World, arguments: &[&str]) -> (String, Vec<String>) {
    let before = world.model.requests("job").len();
    let task = world.model.plan("job", &[("mcp__claude-peers__list_peers", json!({"scope": "machine"}))]);
    let output = world.print("job", &task.cue, arguments);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(world.waiters(), 0, "{:?}", world.processes());
    world.deserted();
    let lines = String::from_utf8(output.stdout).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let requests = world.model.requests("job").split_off(before);
    (first["session_id"].as_str().unwrap().to_owned(), requests.iter().map(|request| request.news()).collect())
}

fn send(world: &World, text: &str) -> Value {
    let (code, receipt) = world.broker().cli_json(&["send", "job", text]);
    assert_eq!(code, 0, "{receipt}");
    receipt
}

fn same(claude: &Path) {
    for world in [World::new(claude), World::hooked(claude)] {
        let (session, requests) = run(&world, &[]);
        assert_eq!(requests.len(), 2, "{requests:#?}");
        send(&world, "For your return.");
        let (_, requests) = run(&world, &["--resume", &session]);
        assert_eq!(requests.len(), 2, "{requests:#?}");
        // Beside the prompt or the result: a hook does not wait for a broker that is busy.
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
        let message = send(&world, "Wait!");
        world.model.release(cue);
        (message, job.join().unwrap())
    });
    assert!(output.status.success(), "{output:?}");
    assert_eq!((world.model.requests("job").len(), world.waiters()), (1, 0), "{:?}", world.processes());
    assert_eq!(world.broker().message(&message["messageId"])["state"], "queued");
    world.deserted();
}
