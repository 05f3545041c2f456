//! The doctor on agents other than Claude Code.

use super::{Visit, doctor, with_claude};
use crate::{setup::agents::AGENT, support::Broker};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

const SERVER: &str = env!("CARGO_BIN_EXE_claude-peers-mcp");

/// A home with a sound Claude Code and a stand-in for this agent.
fn with(agent: &str) -> Broker {
    let broker = Broker::start();
    with_claude(&broker);
    let program = write(&broker, &format!("bin/{agent}"), AGENT);
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    broker
}

fn write(broker: &Broker, file: &str, text: &str) -> PathBuf {
    let path = broker.folder().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// Where only the stand-in is on `PATH`.
fn alone(mut command: Command, broker: &Broker) -> Command {
    let path = format!("{}:/usr/bin:/bin", broker.folder().join("bin").display());
    command.env("PATH", path).env("CALLS", broker.folder().join("calls"));
    command
}

fn visit(broker: &Broker, arguments: &[&str]) -> Visit {
    Visit::of(alone(doctor(broker, arguments), broker))
}

fn entry(command: &str) -> String {
    format!("[mcp_servers.claude-peers]\ncommand = \"{command}\"\n")
}

#[test]
fn unregistered_agent_is_reported_and_fixed() {
    let broker = with("codex");
    write(&broker, ".codex/config.toml", "");
    let visited = visit(&broker, &[]);
    visited.says("agents", "warning", &["Codex has no registration"], "`claude-peers setup --agent codex`");
    assert_eq!(visited.code, 0);
    let fixed = visit(&broker, &["--fix"]);
    let finding = fixed.says("agents", "ok", &["Codex 1.2.3 is set up; messages arrive at once in its terminals"], "");
    assert_eq!(finding["fixed"], true);
    assert_eq!(fs::read_to_string(broker.folder().join(".codex/config.toml")).unwrap(), entry(SERVER));
    assert_eq!(visit(&broker, &[]).findings("agents").len(), 1);
}

#[test]
fn wrong_registration_of_an_agent_is_named() {
    let broker = with("codex");
    let other = write(&broker, "other/claude-peers-mcp", "#!/bin/sh\n");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    for (text, words, help) in [
        (entry("/nowhere/claude-peers-mcp"), "no such program", "`claude-peers setup --agent codex`"),
        (entry(other.to_str().unwrap()), "another copy", "that copy's `claude-peers setup --undo --agent codex`"),
        (entry("/usr/bin/env"), "another program", "rename or remove that entry"),
        (entry(SERVER) + "args = ['x']\n", "arguments", "`claude-peers setup --agent codex`"),
        ("oops".to_owned(), "config.toml, line 1, column", "correct it"),
    ] {
        let file = write(&broker, ".codex/config.toml", &text);
        let visited = visit(&broker, &["--fix"]);
        visited.says("agents", "failed", &[words, file.to_str().unwrap()], help);
        assert_eq!((visited.code, fs::read_to_string(file).unwrap()), (1, text));
    }
}

#[test]
fn missing_plugin_is_reported() {
    let broker = with("opencode");
    let register = format!("{{\"mcp\": {{\"claude-peers\": {{\"type\": \"local\", \"command\": [\"{SERVER}\"]}}}}}}");
    write(&broker, ".config/opencode/opencode.json", &register);
    let help = "`claude-peers setup --agent opencode`";
    visit(&broker, &[]).says("agents", "warning", &["plugin/claude-peers.js is missing"], help);
    write(&broker, ".config/opencode/plugin/claude-peers.js", "export {}\n");
    visit(&broker, &[]).says("agents", "warning", &["is not a file of setup's"], help);
}

#[test]
fn another_agent_is_enough() {
    let broker = with("codex");
    if ["/usr/local/bin", "/opt/homebrew/bin", "/usr/bin", "/bin"].iter().any(|place| Path::new(place).join("claude").exists()) {
        return eprintln!("SKIPPED: Claude Code is installed for the whole machine");
    }
    write(&broker, ".codex/config.toml", &entry(SERVER));
    let mut command = alone(doctor(&broker, &[]), &broker);
    command.env_remove("CLAUDE_PEERS_CLAUDE");
    let visited = Visit::of(command);
    visited.says("claude", "skipped", &["Claude Code is not installed"], "");
    visited.says("agents", "ok", &["Codex 1.2.3 is set up"], "");
    assert_eq!((visited.code, visited.findings("registration").len()), (0, 0), "{:#?}", visited.checks);
}
