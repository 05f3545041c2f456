//! The doctor on the hook and the allow rule: missing, old, disabled, or beside our plugin.

use super::{visit, with_claude};
use crate::support::{Broker, plugin};
use serde_json::{Value, json};
use std::{fs, process::Command};

/// Runs setup in the broker's home.
fn with_hooks(broker: &Broker) {
    let mut setup = broker.cli(&["setup"]);
    setup.env("XDG_RUNTIME_DIR", broker.folder()).env("CLAUDE_PEERS_CLAUDE", broker.folder().join("claude-stand-in"));
    drop(setup.output().unwrap()); // some steps may fail without a service manager
    let settings = fs::read_to_string(broker.folder().join(".claude/settings.json")).unwrap();
    assert!(settings.contains(" hook UserPromptSubmit"), "{settings}");
}

/// Changes the user's Claude Code settings.
fn change(broker: &Broker, key: &str, value: Value) {
    let file = broker.folder().join(".claude/settings.json");
    let mut settings: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    settings[key] = value;
    fs::write(file, settings.to_string()).unwrap();
}

#[test]
fn missing_old_or_disabled_hook_is_reported() {
    let broker = Broker::start();
    with_claude(&broker);
    let means = "messages still arrive, but count as delivered only after a reply";
    visit(&broker, &[]).says("hooks", "warning", &["has no claude-peers hook", means], "`claude-peers setup` adds it");
    with_hooks(&broker);
    visit(&broker, &[]).says("hooks", "ok", &["settings.json has our hook"], "");
    change(&broker, "disableAllHooks", json!(true));
    let visited = visit(&broker, &[]);
    visited.says("hooks", "warning", &["disableAllHooks", means], "take `disableAllHooks` out of ");
    assert_eq!(visited.code, 0, "they may be wanted so");
    change(&broker, "disableAllHooks", json!(false));
    let old = format!("exec {} hook Stop", env!("CARGO_BIN_EXE_claude-peers"));
    change(&broker, "hooks", json!({"Stop": [{"hooks": [{"type": "command", "command": old, "asyncRewake": true}]}]}));
    let words = ["of another version", env!("CARGO_BIN_EXE_claude-peers"), means];
    visit(&broker, &[]).says("hooks", "warning", &words, "`claude-peers setup` replaces them");
    with_hooks(&broker);
    visit(&broker, &[]).says("hooks", "ok", &["settings.json has our hook"], "");
}

#[test]
fn changed_hook_is_reported() {
    let broker = Broker::start();
    with_claude(&broker);
    with_hooks(&broker);
    let file = broker.folder().join(".claude/settings.json");
    let (whole, cli) = (fs::read_to_string(&file).unwrap(), env!("CARGO_BIN_EXE_claude-peers"));
    for (from, to, program) in [
        (format!("exec {cli} hook"), "exec '/a ] || b/claude-peers' hook", "/a ] || b/claude-peers"),
        (format!("[ ! -x {cli} ] || exec "), "", cli),
        ("\"async\": true".to_owned(), "\"async\": false", cli),
        ("\"async\": true".to_owned(), "\"async\": true, \"asyncRewake\": true", cli),
        ("hook UserPromptSubmit".to_owned(), "hook Sneeze", cli),
        ("\"timeout\": 5".to_owned(), "\"timeout\": 600", cli),
        ("\"UserPromptSubmit\": [".to_owned(), "\"Stop\": [", cli),
        ("\"hooks\": [".to_owned(), "\"matcher\": \"\", \"hooks\": [", cli),
    ] {
        assert!(whole.contains(&from), "{from}: {whole}");
        fs::write(&file, whole.replacen(&from, to, 1)).unwrap();
        visit(&broker, &[]).says("hooks", "warning", &["of another version or copy", &format!("({program})")], "");
    }
    for other in ["claude-peers peers", "echo hook Stop", "/x/claude-peers-mcp hook Stop", ""] {
        change(&broker, "hooks", json!({"Stop": [{"hooks": [{"type": "command", "command": other}]}]}));
        visit(&broker, &[]).says("hooks", "warning", &["has no claude-peers hook"], "");
    }
}

#[test]
fn allow_rule_is_checked() {
    let broker = Broker::start();
    with_claude(&broker);
    let missing = "does not have mcp__claude-peers in `permissions.allow`";
    let visited = visit(&broker, &[]);
    visited.says("allow-rule", "warning", &[missing, "stops before it answers"], "`claude-peers setup` adds it");
    assert_eq!(visited.code, 0, "a warning is no failure");
    with_hooks(&broker);
    visit(&broker, &[]).says("allow-rule", "ok", &["lets sessions use our tools without asking"], "");
    for (permissions, state, words) in [
        (json!({"allow": ["mcp__claude-peers__*"]}), "ok", "without asking"),
        (
            json!({"allow": ["mcp__claude-peers"], "ask": ["mcp__claude-peers"]}),
            "ok",
            "has mcp__claude-peers in `permissions.ask`",
        ),
        (json!({"deny": ["mcp__*"]}), "warning", "forbids sessions to use our tools: it has mcp__* in `permissions.deny`"),
        (json!({"deny": ["*"]}), "warning", "it has * in `permissions.deny`"),
        (json!({"deny": ["mcp__claude-peers__send*"]}), "warning", "it has mcp__claude-peers__send* in `permissions.deny`"),
        (json!({"allow": ["mcp__claude-peers"], "ask": ["mcp__claude-peers__ask"]}), "ok", "has mcp__claude-peers__ask in"),
        (json!({"allow": ["mcp__claude-peers__send_message"]}), "warning", missing),
        (json!({"allow": ["mcp__*", 1], "ask": null}), "warning", missing),
        (json!({"deny": ["mcp__claude-peers-2", "mcp__claude-peers-2__*", "mcp__other__*", "Bash(*)"]}), "warning", missing),
        (json!(null), "warning", missing),
    ] {
        change(&broker, "permissions", permissions);
        visit(&broker, &[]).says("allow-rule", state, &[words], "");
    }
    plugin::install(broker.folder());
    change(&broker, "permissions", json!({"allow": ["mcp__claude-peers"]}));
    visit(&broker, &[]).says("allow-rule", "warning", &["does not have mcp__plugin_peers_claude-peers in"], "");
}

#[test]
fn plugin_beside_setup_is_reported() {
    let broker = Broker::start();
    with_claude(&broker);
    let home = broker.folder();
    let registered = fs::read(home.join(".claude.json")).unwrap();
    fs::remove_file(home.join(".claude.json")).unwrap();
    plugin::install(home);
    let visited = visit(&broker, &[]);
    visited.says("registration", "ok", &["the plugin peers@claude-peers brings the MCP server"], "");
    visited.says("hooks", "ok", &["the plugin peers@claude-peers has our hook"], "");
    assert_eq!(visited.code, 0, "{:#?}", visited.checks);
    change(&broker, "disableAllHooks", json!(true));
    visit(&broker, &[]).says("hooks", "warning", &["the plugin peers@claude-peers has our hook", "disableAllHooks"], "");
    change(&broker, "disableAllHooks", json!(false));

    // A disabled plugin counts as missing.
    plugin::switch(home, false);
    let visited = visit(&broker, &[]);
    visited.says("registration", "failed", &["not registered"], "`claude-peers setup`");
    visited.says("hooks", "warning", &["no claude-peers hook"], "`claude-peers setup`");

    fs::write(home.join(".claude.json"), registered).unwrap();
    with_hooks(&broker);
    let visited = visit(&broker, &[]);
    visited.says("registration", "ok", &["registered as"], "");
    visited.says("hooks", "ok", &[], "");
    plugin::switch(home, true);
    let visited = visit(&broker, &[]);
    for (check, words) in [("registration", "sessions start both"), ("hooks", "every prompt runs both")] {
        for way_out in ["`claude-peers setup --undo --register-only`", "`claude plugin uninstall peers@claude-peers`"] {
            visited.says(check, "warning", &[words], way_out);
        }
        assert_eq!(visited.findings(check).len(), 1, "{check}: {:#?}", visited.checks);
    }
    assert_eq!(visited.code, 0, "a warning is no failure");
}

#[test]
fn settings_that_are_no_file_are_reported() {
    let broker = Broker::start();
    with_claude(&broker);
    let settings = broker.folder().join(".claude/settings.json");
    fs::create_dir_all(settings.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(&settings).status().unwrap().success());
    let words = format!("{}: it is not a regular file", settings.display());
    visit(&broker, &[]).says("hooks", "failed", &[&words], "");
}

#[test]
fn unreadable_plugin_file_is_reported_once() {
    let broker = Broker::start();
    with_claude(&broker);
    let home = broker.folder();
    for (file, text, place) in [
        (".claude/settings.json", "{\n  oops\n}", "line 2, column 3"),
        (".claude/plugins/installed_plugins.json", "{\n", "line 2, column 0"),
    ] {
        plugin::install(home);
        fs::write(home.join(file), text).unwrap();
        let named = format!("{}, {place}: ", home.join(file).display());
        let visited = visit(&broker, &["--fix"]);
        visited.says("hooks", "failed", &[&named], "correct that place in the file");
        visited.says("allow-rule", "skipped", &["cannot be understood"], "");
        visited.says("registration", "ok", &["registered as"], "");
        let told = visited.checks.iter().filter(|finding| finding["what"].as_str().unwrap().contains(&named)).count();
        assert_eq!((told, fs::read_to_string(home.join(file)).unwrap().as_str()), (1, text), "{:#?}", visited.checks);
        drop(fs::remove_file(home.join(".claude/settings.json")));
    }
    plugin::install(home);
    fs::remove_file(home.join(".claude.json")).unwrap();
    fs::write(home.join(".claude/plugins/installed_plugins.json"), "{").unwrap();
    let visited = visit(&broker, &["--fix"]);
    visited.says("registration", "skipped", &["not registered", "is unknown"], "");
    assert!(!home.join(".claude.json").exists(), "what might stand twice is not made");
}
