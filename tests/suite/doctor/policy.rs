//! The doctor on what keeps Claude Code from starting the registered server: an administrator's policy, the user's lists, and
//! projects that switch it off or define another server of our name.

use super::{Visit, doctor, stand_in_for_claude, visit, with_claude};
use crate::support::{Broker, managed::managed, mount::DeadMount, plugin};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

const SERVER: &str = env!("CARGO_BIN_EXE_claude-peers-mcp");
const PLUGIN_SERVER: &str = "plugin:peers:claude-peers";

/// The doctor beside this file of an administrator's.
fn under(broker: &Broker, file: &str, text: &Value) -> Option<Visit> {
    managed(&doctor(broker, &[]), broker.folder(), file, &text.to_string()).map(Visit::of)
}

fn write(file: PathBuf, value: &Value) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, value.to_string()).unwrap();
}

/// Registers our server beside these facts about projects.
fn with_projects(home: &Path, projects: &Value) {
    write(home.join(".claude.json"), &json!({"mcpServers": {"claude-peers": {"command": SERVER}}, "projects": projects}));
}

#[test]
fn forbidding_administrator_is_named() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    for (settings, key) in [
        (json!({"deniedMcpServers": [{"serverName": "claude-peers"}]}), Some("deniedMcpServers")),
        (json!({"deniedMcpServers": [{"serverCommand": [SERVER]}]}), Some("deniedMcpServers")),
        (json!({"deniedMcpServers": [{"serverCommand": [SERVER, "x"]}, {"serverName": "x"}, "claude-peers", 1]}), None),
        (json!({"deniedMcpServers": "claude-peers", "allowedMcpServers": null}), None),
        (json!({"allowedMcpServers": []}), Some("allowedMcpServers")),
        (json!({"allowedMcpServers": "all"}), Some("allowedMcpServers")),
        (json!({"allowedMcpServers": [{"serverName": "claude-peers"}, {"serverCommand": ["x"]}]}), Some("allowedMcpServers")),
        (json!({"allowedMcpServers": [{"serverName": "claude-peers"}, {"serverUrl": "https://x/*"}]}), None),
        (json!({"allowedMcpServers": [{"serverCommand": [SERVER]}]}), None),
        (json!({"allowedMcpServers": [{"serverCommand": [format!("${{NONE:-}}{SERVER}")]}]}), None),
        (json!({"strictPluginOnlyCustomization": ["skills"]}), None),
        (json!({"strictPluginOnlyCustomization": ["mcp"]}), Some("strictPluginOnlyCustomization")),
        (json!({"strictPluginOnlyCustomization": true}), Some("strictPluginOnlyCustomization")),
    ] {
        for file in ["managed-settings.json", "managed-settings.d/50-mcp.json"] {
            let Some(visited) = under(&broker, file, &settings) else { return };
            match key {
                Some(key) => {
                    let named = format!("/etc/claude-code/{file} (`{key}`)");
                    visited.says("registration", "failed", &["does not start", &named], "ask your administrator");
                }
                None => drop(visited.says("registration", "ok", &["registered as"], "")),
            }
        }
    }
}

#[test]
fn exclusive_servers_of_an_administrator_count_alone() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    let file = "managed-mcp.json";
    let named = "/etc/claude-code/managed-mcp.json (`mcpServers`)";
    for servers in [json!({"mcpServers": {}}), json!({}), json!("oops"), json!({"mcpServers": {"x": {"command": SERVER}}})] {
        let Some(visited) = under(&broker, file, &servers) else { return };
        visited.says("registration", "failed", &["does not start", named], "ask your administrator");
    }
    let ours = json!({"mcpServers": {"claude-peers": {"command": SERVER}}});
    let other = json!({"mcpServers": {"claude-peers": {"command": "/bin/true"}}});
    // The user's own entry does not matter.
    for registered in [true, false] {
        under(&broker, file, &ours).unwrap().says("registration", "ok", &["registered as"], "");
        let visited = under(&broker, file, &other).unwrap();
        visited.says("registration", "failed", &["for another program", "/bin/true"], "ask your administrator");
        if registered {
            fs::remove_file(broker.folder().join(".claude.json")).unwrap();
        }
    }
    // The allowlist is for the servers of users.
    write(broker.folder().join(".claude/settings.json"), &json!({"allowedMcpServers": []}));
    under(&broker, file, &ours).unwrap().says("registration", "ok", &["registered as"], "");
    plugin::install(broker.folder());
    let visited = under(&broker, file, &json!({"mcpServers": {}})).unwrap();
    visited.says("registration", "failed", &["does not start", named], "");
}

#[test]
fn lists_in_user_settings_count() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    let settings = broker.folder().join(".claude/settings.json");
    let named = |key| format!("{} (`{key}`)", settings.display());
    for (lists, key) in [
        (json!({"deniedMcpServers": [{"serverName": "claude-peers"}]}), "deniedMcpServers"),
        (json!({"allowedMcpServers": [{"serverName": "x"}]}), "allowedMcpServers"),
    ] {
        write(settings.clone(), &lists);
        let visited = visit(&broker, &[]);
        visited.says("registration", "failed", &["does not start", &named(key)], &format!("`{key}` in {}", settings.display()));
    }
    for lists in [
        json!({"allowedMcpServers": "x", "strictPluginOnlyCustomization": true}),
        json!({"disabledMcpjsonServers": ["claude-peers"], "disabledMcpServers": ["claude-peers"]}),
    ] {
        write(settings.clone(), &lists);
        visit(&broker, &[]).says("registration", "ok", &["registered as"], "");
    }
    // A user's allowlist adds to the administrator's, unless that one counts alone.
    write(settings.clone(), &json!({"allowedMcpServers": [{"serverName": "claude-peers"}]}));
    let managed = |more: Value| under(&broker, "managed-settings.json", &more);
    let Some(visited) = managed(json!({"allowedMcpServers": []})) else { return };
    visited.says("registration", "ok", &["registered as"], "");
    let visited = managed(json!({"allowedMcpServers": [], "allowManagedMcpServersOnly": true})).unwrap();
    visited.says("registration", "failed", &["managed-settings.json (`allowedMcpServers`)"], "");
    write(settings, &json!({"allowedMcpServers": []}));
    managed(json!({"allowManagedMcpServersOnly": true})).unwrap().says("registration", "ok", &["registered as"], "");
}

#[test]
fn plugin_has_a_name_of_its_own() {
    let broker = Broker::prepared(&[]);
    stand_in_for_claude(broker.folder(), "2.1.330");
    plugin::install(broker.folder());
    for (settings, state) in [
        (json!({"deniedMcpServers": [{"serverName": "claude-peers"}]}), "ok"),
        (json!({"strictPluginOnlyCustomization": true}), "ok"),
        (json!({"deniedMcpServers": [{"serverName": PLUGIN_SERVER}]}), "failed"),
        // Claude Code drops this entry: the name has colons.
        (json!({"allowedMcpServers": [{"serverName": PLUGIN_SERVER}]}), "failed"),
    ] {
        let Some(visited) = under(&broker, "managed-settings.json", &settings) else { return };
        visited.says("registration", state, &[], "");
        assert_eq!(visited.findings("registration").len(), 1, "{settings}");
    }
    write(broker.folder().join(".claude.json"), &json!({"projects": {"/p": {"disabledMcpServers": [PLUGIN_SERVER]}}}));
    visit(&broker, &[]).says("registration", "warning", &["sessions in /p do not start", "`disabledMcpServers`"], "/mcp");
}

#[test]
fn projects_without_our_server_are_named() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    let (home, project) = (broker.folder(), broker.folder().join("project"));
    let path = project.to_str().unwrap();
    let file = home.join(".claude.json");
    let other = json!({"claude-peers": {"command": "/bin/true"}});

    with_projects(
        home,
        &json!({"/p": {"disabledMcpServers": ["x", "claude-peers"]}, "/q": {"disabledMcpServers": "claude-peers"}}),
    );
    let words = ["sessions in /p do not start", &format!("{} (`disabledMcpServers`)", file.display())];
    let visited = visit(&broker, &[]);
    visited.says("registration", "warning", &words, "/mcp");
    assert_eq!(visited.findings("registration").len(), 2);

    with_projects(home, &json!({"/p": {"mcpServers": other}}));
    let words = ["sessions in /p start /bin/true", &format!("{} (`mcpServers`)", file.display())];
    visit(&broker, &[]).says("registration", "warning", &words, "in /p: `claude mcp remove --scope local claude-peers`");

    with_projects(home, &json!({path: {}}));
    write(project.join(".mcp.json"), &json!({"mcpServers": other}));
    let words = [&format!("sessions in {path} start /bin/true")[..], &format!("{path}/.mcp.json (`mcpServers`)"), "approved"];
    visit(&broker, &[]).says("registration", "warning", &words, "rename");
    // The project in which the doctor runs need not be known to Claude Code.
    with_projects(home, &json!({}));
    let mut here = doctor(&broker, &[]);
    here.current_dir(&project);
    Visit::of(here).says("registration", "warning", &words, "rename");
    for harmless in [json!({"claude-peers": {"command": SERVER}}), json!({"x": other["claude-peers"]}), json!([])] {
        write(project.join(".mcp.json"), &json!({"mcpServers": harmless}));
        with_projects(home, &json!({path: {}}));
        assert_eq!(visit(&broker, &[]).findings("registration").len(), 1, "{harmless}");
    }

    for settings in [".claude/settings.json", ".claude/settings.local.json"] {
        write(project.join(settings), &json!({"deniedMcpServers": [{"serverName": "claude-peers"}]}));
        let words = [&format!("sessions in {path} do not start")[..], &format!("{path}/{settings} (`deniedMcpServers`)")];
        visit(&broker, &[]).says("registration", "warning", &words, "");
        fs::remove_file(project.join(settings)).unwrap();
    }
}

#[test]
fn dead_project_does_not_hold_the_doctor_up() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    let project = broker.folder().join("project");
    let Some(_mount) = DeadMount::at(&project) else { return };
    with_projects(broker.folder(), &json!({project.to_str().unwrap(): {}}));
    visit(&broker, &[]).says("registration", "warning", &["could not be read in time", project.to_str().unwrap()], "");
}
