//! What keeps Claude Code from starting our server: the doctor says so where Claude Code does so, and only there.

use crate::{Test, support::managed::managed, world::World};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

pub const TESTS: &[(&str, Test)] = &[
    ("administrators_policy_is_told_as_it_is", policy),
    ("projects_servers_are_told_as_they_are", projects),
    ("plugins_policy_is_told_as_it_is", plugin),
];

const SERVER: &str = env!("CARGO_BIN_EXE_claude-peers-mcp");
const SETTINGS: &str = "managed-settings.json";
const SERVERS: &str = "managed-mcp.json";

impl World {
    /// Whether Claude Code starts our server in `directory`, by its own list.
    fn starts(&self, directory: &Path, by_administrator: Option<(&str, &Value)>) -> bool {
        let mut list = self.command(&["mcp", "list"]);
        let listed = self.under(list.current_dir(directory), by_administrator);
        let said = String::from_utf8(listed.stdout).unwrap();
        said.lines().any(|line| line.contains("claude-peers-mcp") && line.contains("Connected"))
    }

    /// What the doctor says about it.
    fn findings(&self, by_administrator: Option<(&str, &Value)>) -> Vec<Value> {
        let doctor = self.broker().cli(&["doctor", "--json"]);
        let report: Value = serde_json::from_slice(&self.under(&doctor, by_administrator).stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().iter();
        checks.filter(|finding| finding["check"] == "registration").cloned().collect()
    }

    fn under(&self, command: &Command, by_administrator: Option<(&str, &Value)>) -> Output {
        let (file, text) = by_administrator.unwrap_or((SETTINGS, &Value::Null));
        let text = if text.is_null() { "{}".to_owned() } else { text.to_string() };
        managed(command, self.home(), file, &text).expect("mounts, as the tests' own namespaces").output().unwrap()
    }

    /// Asserts that the doctor agrees with Claude Code.
    fn agrees(&self, starts: bool, by_administrator: Option<(&str, &Value)>) {
        assert_eq!(self.starts(self.home(), by_administrator), starts, "{by_administrator:?}: Claude Code is another one");
        let findings = self.findings(by_administrator);
        assert_eq!(findings.iter().all(|finding| finding["state"] != "failed"), starts, "{by_administrator:?}: {findings:?}");
    }
}

fn policy(claude: &Path) {
    let world = World::new(claude);
    let ours = json!({"mcpServers": {"claude-peers": {"command": SERVER}}});
    for (file, text, starts) in [
        (SETTINGS, json!({"deniedMcpServers": [{"serverName": "claude-peers"}]}), false),
        (SETTINGS, json!({"deniedMcpServers": [{"serverCommand": [format!("${{NONE:-}}{SERVER}")]}]}), false),
        (SETTINGS, json!({"deniedMcpServers": [{"serverCommand": [SERVER, "x"]}, "claude-peers"]}), true),
        (SETTINGS, json!({"allowedMcpServers": "all"}), false),
        (SETTINGS, json!({"allowedMcpServers": [{"serverName": "claude-peers"}, {"serverCommand": ["x"]}]}), false),
        (SETTINGS, json!({"allowedMcpServers": [{"serverName": "claude-peers"}, {"serverUrl": "https://x/*"}]}), true),
        (SETTINGS, json!({"allowedMcpServers": [{"serverCommand": [SERVER]}]}), true),
        (SETTINGS, json!({"strictPluginOnlyCustomization": ["mcp"]}), false),
        (SERVERS, json!({"mcpServers": {}}), false),
        (SERVERS, json!("oops"), false),
        (SERVERS, ours.clone(), true),
    ] {
        world.agrees(starts, Some((file, &text)));
    }
    // The user's own lists.
    world.set("allowedMcpServers", &json!([{"serverName": "claude-peers"}]));
    world.agrees(true, Some((SETTINGS, &json!({"allowedMcpServers": []}))));
    world.agrees(false, Some((SETTINGS, &json!({"allowedMcpServers": [], "allowManagedMcpServersOnly": true}))));
    world.set("allowedMcpServers", &json!([]));
    world.agrees(false, None);
    world.agrees(true, Some((SERVERS, &ours)));
    world.set("deniedMcpServers", &json!([{"serverName": "claude-peers"}]));
    world.agrees(false, Some((SERVERS, &ours)));
}

fn projects(claude: &Path) {
    let world = World::new(claude);
    let project = world.directory("project");
    world.trust(&project);
    let path = project.to_str().unwrap();
    let other = json!({"claude-peers": {"command": "/bin/true"}});
    let agrees = |starts: bool, words: &str| {
        assert_eq!(world.starts(&project, None), starts, "{words}: Claude Code is another one");
        let findings = world.findings(None);
        let is_told = |finding: &Value| finding["state"] == "warning" && finding["what"].as_str().unwrap().contains(path);
        assert_eq!(findings.iter().any(is_told), !words.is_empty(), "{findings:?}");
        assert!(findings.iter().any(|finding| finding["what"].as_str().unwrap().contains(words)), "{words}: {findings:?}");
    };
    let change = |key: &str, value: &Value| world.change(".claude.json", |state| state["projects"][path][key] = value.clone());
    agrees(true, "");
    change("disabledMcpServers", &json!(["claude-peers"]));
    agrees(false, "`disabledMcpServers`");
    change("disabledMcpServers", &json!([]));
    change("mcpServers", &other);
    agrees(false, "start /bin/true instead");
    change("mcpServers", &json!({}));
    // A server of the project's needs the user's approval.
    fs::write(project.join(".mcp.json"), json!({"mcpServers": other}).to_string()).unwrap();
    agrees(true, "once that is approved");
    world.set("enabledMcpjsonServers", &json!(["claude-peers"]));
    agrees(false, "once that is approved");
    fs::remove_file(project.join(".mcp.json")).unwrap();
    fs::create_dir(project.join(".claude")).unwrap();
    let denied = json!({"deniedMcpServers": [{"serverName": "claude-peers"}]});
    fs::write(project.join(".claude/settings.json"), denied.to_string()).unwrap();
    agrees(false, "`deniedMcpServers`");
}

fn plugin(claude: &Path) {
    let world = World::bare(claude, &json!({})).plugged();
    let name = "plugin:peers:claude-peers";
    for (file, text, starts) in [
        (SETTINGS, json!({"deniedMcpServers": [{"serverName": "claude-peers"}], "strictPluginOnlyCustomization": true}), true),
        (SETTINGS, json!({"deniedMcpServers": [{"serverName": name}]}), false),
        (SETTINGS, json!({"allowedMcpServers": [{"serverName": name}]}), false),
        (SERVERS, json!({"mcpServers": {}}), false),
    ] {
        world.agrees(starts, Some((file, &text)));
    }
    let plugins = include_str!("../../packaging/plugin/peers/.mcp.json");
    let server = &serde_json::from_str::<Value>(plugins).unwrap()["mcpServers"]["claude-peers"];
    let words: Vec<&Value> = std::iter::once(&server["command"]).chain(server["args"].as_array().unwrap()).collect();
    world.agrees(true, Some((SETTINGS, &json!({"allowedMcpServers": [{"serverCommand": words}]}))));
}
