//! Setup where somebody keeps Claude Code from starting our server.

use super::Home;
use crate::support::managed::managed;
use serde_json::Value;
use std::fs;

#[test]
fn forbidden_registration_fails_and_names_the_file() {
    let home = Home::new();
    let file = home.user_settings();
    home.write_user_settings(r#"{"deniedMcpServers": [{"serverName": "claude-peers"}]}"#);
    let named = format!("{} (`deniedMcpServers`)", file.display());
    let (code, steps) = home.setup(&["--register-only"]);
    assert!(code == 1 && steps["registration"].0 == "failed" && steps["registration"].1.contains(&named), "{steps:?}");
    assert_eq!(home.registration(), Value::Null);
    // An entry that is there already stays, with a warning.
    fs::remove_file(&file).unwrap();
    assert_eq!(home.setup(&["--register-only"]).0, 0);
    home.write_user_settings(r#"{"deniedMcpServers": [{"serverName": "claude-peers"}]}"#);
    let (code, steps) = home.setup(&["--register-only"]);
    assert!(code == 0 && steps["registration"].0 == "already" && steps["registration"].1.contains(&named), "{steps:?}");
}

#[test]
fn exclusive_servers_of_an_administrator_are_named() {
    let home = Home::new();
    let under = |text: &str| {
        let command = managed(&home.command(&["--register-only"]), &home.path("admin"), "managed-mcp.json", text)?;
        Some(Home::run(command))
    };
    let Some((code, steps)) = under(r#"{"mcpServers": {}}"#) else { return };
    let (state, said) = &steps["registration"];
    assert!(code == 1 && state == "failed" && said.contains("/etc/claude-code/managed-mcp.json (`mcpServers`)"), "{steps:?}");
    let server = env!("CARGO_BIN_EXE_claude-peers-mcp");
    let (code, steps) = under(&format!(r#"{{"mcpServers": {{"claude-peers": {{"command": "{server}"}}}}}}"#)).unwrap();
    assert!(code == 0 && steps["registration"].0 == "already", "{steps:?}");
    assert!(home.calls().iter().all(|call| !call.contains("mcp add")), "{:?}", home.calls());
    // Undo takes back the user's entry, which is there though it does not count.
    assert_eq!(home.setup(&["--register-only"]).0, 0);
    let undo = home.command(&["--undo", "--register-only"]);
    let undo = managed(&undo, &home.path("admin"), "managed-mcp.json", r#"{"mcpServers": {}}"#).unwrap();
    let (code, steps) = Home::run(undo);
    assert_eq!((code, steps["registration"].0.as_str(), home.registration()), (0, "undone", Value::Null), "{steps:?}");
}
