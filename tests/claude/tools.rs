//! The tools that a registered session is offered.

use crate::{Test, session::Claude, world::World};
use serde_json::{Value, json};
use std::path::Path;

pub const TESTS: &[(&str, Test)] = &[
    ("tools::registered_session_is_offered_our_tools", offered),
    ("tools::sessions_see_each_other_with_their_directories", seen),
    ("tools::script_calls_a_tool", script),
];

/// Claude Code's names for our tools.
const TOOLS: [&str; 4] = ["check_messages", "list_peers", "send_message", "set_summary"];

fn offered(claude: &Path) {
    let world = World::new(claude);
    let ada = Claude::start(&world, "ada");
    let task = world.model.plan("ada", &[("ToolSearch", json!({"query": "select:mcp__claude-peers__list_peers"}))]);
    ada.prompt(&task.cue);
    let found = world.model.request("ada", "found", |request| request.result(&task.calls[0]).is_some());
    // By name at first, and with its schema once the model has searched for it.
    for tool in TOOLS.map(|tool| format!("mcp__claude-peers__{tool}")) {
        assert!(found.text().contains(&tool) || found.tools().contains(&tool.as_str()), "{tool}: {}", found.news());
    }
    assert!(found.tools().contains(&"mcp__claude-peers__list_peers"), "{:?}", found.tools());
    assert!(found.text().contains("Peers are the user's other coding-agent sessions"), "the instructions reach the model");
}

fn seen(claude: &Path) {
    let world = World::new(claude);
    let (ada, bob) = (Claude::start(&world, "ada"), Claude::start(&world, "bob"));
    for (session, other) in [(&ada, "bob"), (&bob, "ada")] {
        let (_, list) = session.call("list_peers", json!({"scope": "machine"}));
        let list: Value = serde_json::from_str(&list).unwrap();
        let peers: Vec<&Value> = list["peers"].as_array().unwrap().iter().map(|peer| &peer["cwd"]).collect();
        assert_eq!(peers, [world.directory(other).to_str().unwrap()], "{list}");
    }
}

fn script(claude: &Path) {
    let world = World::new(claude);
    let task = world.model.plan("job", &[("mcp__claude-peers__list_peers", json!({"scope": "machine"}))]);
    let output = world.print("job", &task.cue, &[]);
    assert!(output.status.success(), "{output:?}");
    let last = world.model.requests("job").pop().unwrap();
    let list: Value = serde_json::from_str(&last.result(&task.calls[0]).unwrap()).unwrap();
    assert_eq!(list["self"]["cwd"], world.directory("job").to_str().unwrap(), "{list}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let server = lines.find_map(|line| line["mcp_servers"].get(0).cloned()).unwrap();
    assert_eq!((&server["name"], &server["status"]), (&json!("claude-peers"), &json!("connected")));
    world.deserted();
}
