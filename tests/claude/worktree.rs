//! A session that enters a git worktree while it runs.

use crate::{
    Test,
    session::Claude,
    support::{eventually, git},
    world::World,
};
use serde_json::{Value, json};
use std::path::Path;

pub const TESTS: &[(&str, Test)] = &[("worktree::session_is_listed_in_the_worktree_it_enters", entered)];

fn entered(claude: &Path) {
    let world = World::hooked(claude);
    git::repository(&world.directory("bob"));
    world.trust(&world.directory("bob"));
    let bob = Claude::start(&world, "bob");
    let before = bob.reached();
    assert_eq!((&before["cwd"], &before["gitBranch"]), (&json!(bob.directory()), &json!("main")), "{before}");
    let calls = [("ToolSearch", json!({"query": "select:EnterWorktree"})), ("EnterWorktree", json!({"name": "wt"}))];
    let task = world.model.plan("bob", &calls);
    bob.prompt(&task.cue);
    let request = world.model.request("bob", "it is there", |request| request.result(&task.calls[1]).is_some());
    let said = request.result(&task.calls[1]).unwrap();
    let place = bob.directory().join(".claude/worktrees/wt");
    assert!(said.contains(place.to_str().unwrap()), "{said}");
    bob.idle();
    // Its next prompt reports the new directory.
    bob.prompt("Go on.");
    let peer = eventually("it is shown there", || bob.peer().filter(|peer| peer["cwd"] == json!(place)));
    bob.idle();
    assert_eq!(
        (&peer["id"], &peer["gitRepo"], &peer["delivery"]),
        (&before["id"], &before["gitRepo"], &json!("inbox")),
        "{peer}"
    );
    let branch = peer["gitBranch"].as_str().unwrap_or_default();
    assert!(branch.contains("wt"), "{peer}");
    // It is listed in the worktree, and a message reaches it.
    let place = place.to_str().unwrap();
    let beside = world.broker().http().get(&format!("/v1/peers?scope=directory&cwd={place}")).json();
    let ids: Vec<&Value> = beside["peers"].as_array().unwrap().iter().map(|peer| &peer["id"]).collect();
    assert_eq!(ids, [&before["id"]], "{beside}");
    let sent = world.send("bob", "Is the parser done?");
    bob.lets_in(&sent, "Is the parser done?");
    assert_eq!(bob.peer().unwrap()["cwd"], json!(place));
}
