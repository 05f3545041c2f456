//! Our plugin, instead of setup's registration and hook and beside them.

use crate::{
    Test,
    session::Claude,
    support::{Session, eventually},
    world::World,
};
use serde_json::{Value, json};
use std::path::Path;

pub const TESTS: &[(&str, Test)] =
    &[("plugin::plugin_alone_wakes_an_idle_session", alone), ("plugin::messages_show_once_beside_the_setup_hook", both)];

/// The doctor's findings for registration and hooks.
fn findings(world: &World) -> Vec<(String, String)> {
    let (_, report) = world.broker().cli_json(&["doctor"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = report["checks"].as_array().unwrap().iter();
    let ours = checks.filter(|check| check["check"] == "registration" || check["check"] == "hooks");
    ours.map(|check| (text(&check["check"]), text(&check["state"]))).collect()
}

fn states(registration: &str, hooks: &str) -> Vec<(String, String)> {
    [("registration", registration), ("hooks", hooks)].map(|(check, state)| (check.to_owned(), state.to_owned())).into()
}

fn alone(claude: &Path) {
    let world = World::bare(claude, &json!({}));
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/plugin");
    for manifest in [folder.to_owned(), format!("{folder}/peers")] {
        world.claude(&["plugin", "validate", "--strict", &manifest]);
    }
    let world = world.plugged();
    let list = world.claude(&["mcp", "list"]);
    assert!(list.lines().any(|line| line.starts_with("plugin:peers:claude-peers:") && line.ends_with("Connected")), "{list}");
    assert_eq!(findings(&world), states("ok", "ok"));
    let mut ada = Session::pulling(&world.broker(), &world.directory("ada"), "ada");
    let bob = Claude::start(&world, "bob");
    bob.reached();
    ada.send("bob", "Is the parser done?");
    let request = world.model.request("bob", "the message", |request| request.text().contains("Is the parser done?"));
    assert_eq!(request.text().matches("Is the parser done?").count(), 1, "{}", request.news());
    bob.idle();
    let task = world.model.plan("bob", &[("mcp__plugin_peers_claude-peers__list_peers", json!({"scope": "machine"}))]);
    bob.prompt(&task.cue);
    let request = world.model.request("bob", "its peers", |request| request.result(&task.calls[0]).is_some());
    let list: Value = serde_json::from_str(&request.result(&task.calls[0]).unwrap()).unwrap();
    assert_eq!(list["self"]["cwd"], world.directory("bob").to_str().unwrap(), "{list}");
    world.claude(&["plugin", "uninstall", "peers@claude-peers"]);
    assert_eq!(findings(&world), states("failed", "warning"));
}

fn both(claude: &Path) {
    let world = World::hooked(claude).plugged();
    assert_eq!(findings(&world), states("warning", "warning"));
    let mut ada = Session::pulling(&world.broker(), &world.directory("ada"), "ada");
    let bob = Claude::start(&world, "bob");
    bob.reached();
    for text in ["The first.", "The second.", "The third."] {
        ada.send("bob", text);
        let request = world.model.request("bob", text, |request| request.text().contains(text));
        assert_eq!(request.text().matches(text).count(), 1, "{}", request.news());
        bob.idle();
    }
    // Both servers answer for the same session.
    let tools = ["claude-peers", "plugin_peers_claude-peers", "claude-peers"].map(|server| format!("mcp__{server}__list_peers"));
    let task = world.model.plan("bob", &tools.each_ref().map(|tool| (tool.as_str(), json!({"scope": "machine"}))));
    let id = eventually("it is listed", || Some(bob.peer()?["id"].as_str().unwrap().to_owned()));
    bob.prompt(&task.cue);
    for call in &task.calls {
        let request = world.model.request("bob", "its peers", |request| request.result(call).is_some());
        let result = request.result(call).unwrap();
        assert!(result.contains(&id) && result.contains("ada"), "{result}");
    }
    let last = world.model.requests("bob").pop().unwrap();
    for text in ["The first.", "The second.", "The third."] {
        assert_eq!(last.text().matches(text).count(), 1, "{}", last.text());
    }
}
