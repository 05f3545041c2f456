//! The doctor on Claude Code: missing, too old, or wrongly registered.

use super::{Visit, doctor, register, stand_in_for_claude, visit, with_claude};
use crate::support::Broker;
use serde_json::json;
use std::{fs, path::Path};

#[test]
fn unusable_claude_code_is_reported() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    let stand_in = broker.folder().join("claude-stand-in");
    for (version, state, words) in [
        ("2.1.79", "failed", "Claude Code 2.1.79"),
        ("1.0.128", "failed", "too old: channels need 2.1.80"),
        ("2.1.80", "warning", "have no inbox, which needs 2.1.224: without a channel, messages come with a session's next call"),
        ("2.1.223", "warning", "Claude Code 2.1.223"),
        ("2.1.224", "ok", "no inbox before 2.1.248"),
        ("2.1.248", "ok", "Claude Code 2.1.248"),
        ("3.0.0", "ok", "Claude Code 3.0.0"),
        ("what", "failed", "no version"),
    ] {
        stand_in_for_claude(broker.folder(), version);
        visit(&broker, &[]).says("claude", state, &[words, stand_in.to_str().unwrap()], "");
    }
    let mut command = doctor(&broker, &[]);
    command.env("CLAUDE_PEERS_CLAUDE", "/nowhere/claude");
    Visit::of(command).says("claude", "failed", &["CLAUDE_PEERS_CLAUDE", "/nowhere/claude"], "");

    if ["/usr/local/bin/claude", "/usr/bin/claude", "/bin/claude"].iter().any(|path| Path::new(path).exists()) {
        return eprintln!("SKIPPED: Claude Code is installed for the whole machine, so it cannot be missing");
    }
    let mut command = doctor(&broker, &[]);
    command.env_remove("CLAUDE_PEERS_CLAUDE").env("PATH", "/usr/bin:/bin");
    Visit::of(command).says("claude", "failed", &["was not found"], "CLAUDE_PEERS_CLAUDE");
}

#[test]
fn missing_registration_is_reported_and_fixed() {
    let broker = Broker::start();
    with_claude(&broker);
    fs::remove_file(broker.folder().join(".claude.json")).unwrap();
    visit(&broker, &[]).says("registration", "failed", &["not registered"], "claude-peers setup");
    let visited = visit(&broker, &["--fix"]);
    let finding = visited.says("registration", "ok", &[env!("CARGO_BIN_EXE_claude-peers-mcp")], "");
    assert_eq!((visited.code, &finding["fixed"]), (0, &json!(true)));
    let text = String::from_utf8(doctor(&broker, &["--fix"]).output().unwrap().stdout).unwrap();
    assert!(!text.contains("fixed: "), "nothing is left to fix: {text}");

    // A fault that cannot be fixed says why.
    fs::remove_file(broker.folder().join(".claude.json")).unwrap();
    fs::write(
        broker.folder().join("claude-stand-in"),
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 2.1.330 || { echo no room >&2; exit 1; }\n",
    )
    .unwrap();
    let visited = visit(&broker, &["--fix"]);
    assert_eq!(visited.says("registration", "failed", &["not registered"], "--fix failed")["fixed"], false);
    visited.says("registration", "failed", &[], "no room");
}

#[test]
fn foreign_registration_is_reported_and_kept() {
    let broker = Broker::prepared(&[]);
    let home = broker.folder();
    with_claude(&broker);
    let server = env!("CARGO_BIN_EXE_claude-peers-mcp");
    let elsewhere = home.join("claude-peers-mcp");
    fs::copy(server, &elsewhere).unwrap();
    let plain = home.join("plain/claude-peers-mcp");
    fs::create_dir(plain.parent().unwrap()).unwrap();
    fs::write(&plain, "").unwrap();
    let cases = [
        (
            json!({"peers": {"command": server}}),
            "failed",
            "registered under the name peers",
            "claude mcp remove --scope user peers",
        ),
        (
            json!({"claude-peers": {"command": "/nowhere/claude-peers-mcp"}}),
            "failed",
            "there is no such program",
            "claude mcp add",
        ),
        (json!({"claude-peers": {"command": plain}}), "failed", "may not be executed", "claude mcp add"),
        (json!({"claude-peers": {"command": elsewhere}}), "warning", "not the one beside this program", "claude mcp add"),
        (
            json!({"claude-peers": {"command": "bun", "args": ["server.ts"]}}),
            "failed",
            "another program: bun server.ts",
            "claude mcp remove",
        ),
        (json!({"claude-peers": {"command": server, "args": ["--x"]}}), "failed", "arguments", "claude mcp add"),
        (
            json!({"claude-peers": {"command": server, "env": {"CLAUDE_PEERS_SOCKET": "/s"}}}),
            "warning",
            "CLAUDE_PEERS_SOCKET",
            "claude mcp add",
        ),
        (
            json!({"claude-peers": {"command": server}, "peers": {"command": server}}),
            "warning",
            "a second time, as peers",
            "remove --scope user peers",
        ),
    ];
    for (servers, state, words, help) in cases {
        register(home, servers);
        let before = fs::read(home.join(".claude.json")).unwrap();
        visit(&broker, &["--fix"]).says("registration", state, &[words], help);
        assert_eq!(fs::read(home.join(".claude.json")).unwrap(), before, "{words}: it is not ours to change");
    }
    // Of one project, in a file with a byte order mark.
    let local = json!({"/src/x": {"mcpServers": {"claude-peers": {"command": server}}}});
    let user = json!({"claude-peers": {"command": server}, "docs": {"type": "http", "args": null, "url": "https://example.org"}});
    for (servers, state, words) in [(json!({}), "failed", "for /src/x only"), (user, "warning", "a second time for /src/x")] {
        let text = json!({"mcpServers": servers, "projects": local}).to_string();
        fs::write(home.join(".claude.json"), format!("\u{feff}{text}")).unwrap();
        visit(&broker, &[]).says("registration", state, &[words], "");
    }
    fs::write(home.join(".claude.json"), "{\n  \"mcpServers\": {,}\n}").unwrap();
    visit(&broker, &["--fix"]).says("registration", "failed", &[".claude.json, line 2, column 18"], "correct");
    assert_eq!(fs::read_to_string(home.join(".claude.json")).unwrap(), "{\n  \"mcpServers\": {,}\n}");
}

/// Claude Code accepts all of these.
#[test]
fn odd_entries_of_others_do_not_matter() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    let ours = json!({"command": env!("CARGO_BIN_EXE_claude-peers-mcp")});
    for odd in [
        r#""x": {"command": "x", "args": "--all"}"#,
        r#""x": null, "y": 1"#,
        r#""x": {"command": "x", "args": [1], "env": ["A=b"]}"#,
        r#""x": {"command": "x\ud83d"}"#,
        r#""x": {}}, "projects": {"/a": null, "/b": {"mcpServers": null}}, "projects": {"#,
    ] {
        let text = format!(r#"{{"mcpServers": {{"claude-peers": {ours}, {odd}}}}}"#);
        fs::write(broker.folder().join(".claude.json"), text).unwrap();
        visit(&broker, &[]).says("registration", "ok", &["registered as"], "");
    }
    let own = json!({"command": ours["command"], "env": ["SECRET=x"]});
    register(broker.folder(), json!({"claude-peers": own}));
    assert!(!format!("{:?}", visit(&broker, &[]).checks).contains("SECRET=x"));
}
