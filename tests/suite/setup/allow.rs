//! Setup and the rule in Claude Code's settings that allows our tools without asking.

use super::Home;
use crate::support::plugin;
use serde_json::{Value, json};
use std::fs;

const RULE: &str = "mcp__claude-peers";
const PLUGINS: &str = "mcp__plugin_peers_claude-peers";

impl Home {
    fn permissions(&self) -> Value {
        let text = fs::read_to_string(self.user_settings()).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["permissions"].clone()
    }
}

#[test]
fn allow_rule_is_added_and_removed() {
    let home = Home::new();
    fs::write(home.path("home/.config/other"), "not ours").unwrap();
    for text in ["{}", "{\"permissions\": {\"allow\": [ \"Bash(ls)\" ], \"defaultMode\":\"plan\"},\n\"x\":1.50}"] {
        home.write_user_settings(text);
        let before = home.tree();
        let (code, steps) = home.setup(&[]);
        assert_eq!((code, steps["allow_rule"].0.as_str()), (0, "done"), "{steps:?}");
        for words in ["without asking", RULE, home.user_settings().to_str().unwrap(), "`--no-allow`", "--undo"] {
            assert!(steps["allow_rule"].1.contains(words), "{words}: {steps:?}");
        }
        let allowed = home.permissions()["allow"].clone();
        assert_eq!(allowed.as_array().unwrap().last(), Some(&json!(RULE)));
        assert_eq!(home.setup(&[]).1["allow_rule"].0, "already");
        assert_eq!(home.permissions()["allow"], allowed);
        assert_eq!(home.setup(&["--undo"]).1["allow_rule"].0, "undone");
        assert_eq!(home.tree(), before);
    }
}

#[test]
fn hook_and_allow_rule_are_independent() {
    let home = Home::new();
    fs::write(home.path("home/.config/other"), "not ours").unwrap();
    for there in [false, true] {
        if there {
            home.write_user_settings("{\n}\n");
        }
        let before = home.tree();
        let (code, steps) = home.setup(&["--no-allow"]);
        assert!(code == 0 && !steps.contains_key("allow_rule") && home.permissions() == Value::Null, "{steps:?}");
        assert_eq!(home.setup(&["--undo"]).0, 0);
        assert_eq!(home.tree(), before);

        assert_eq!(home.setup(&["--no-hooks"]).1["allow_rule"].0, "done");
        assert_eq!(home.setup(&[]).1["hooks"].0, "done");
        let (code, steps) = home.setup(&["--undo", "--no-allow"]);
        assert!(code == 0 && steps["hooks"].0 == "undone" && !steps.contains_key("allow_rule"), "{steps:?}");
        assert_eq!(home.permissions()["allow"], json!([RULE]));
        assert_eq!(home.setup(&["--undo", "--register-only"]).1["allow_rule"].0, "undone");
        assert_eq!(home.tree(), before);
    }
}

#[test]
fn rule_of_the_user_stays() {
    let home = Home::new();
    for theirs in [RULE, "mcp__claude-peers__*"] {
        let text = json!({"permissions": {"allow": [theirs]}}).to_string();
        home.write_user_settings(&text);
        assert_eq!(home.setup(&[]).1["allow_rule"].0, "already", "{theirs}");
        assert_eq!(home.permissions()["allow"], json!([theirs]));
        assert_eq!(home.setup(&["--undo"]).1["allow_rule"].0, "already", "{theirs}");
        assert_eq!(fs::read_to_string(home.user_settings()).unwrap(), text);
    }
    for list in ["ask", "deny"] {
        home.write_user_settings(&json!({"permissions": {list: ["mcp__claude-peers__send_message"]}}).to_string());
        let (code, steps) = home.setup(&[]);
        let (state, said) = &steps["allow_rule"];
        assert_eq!((code, state.as_str(), &home.permissions()["allow"]), (0, "already", &Value::Null), "{steps:?}");
        assert!(said.contains(&format!("which has mcp__claude-peers__send_message in `permissions.{list}`")), "{said}");
        assert_eq!(home.setup(&["--undo"]).0, 0);
    }
}

#[test]
fn later_changes_of_the_user_stay() {
    let home = Home::new();
    assert_eq!(home.setup(&[]).0, 0);
    let text = fs::read_to_string(home.user_settings()).unwrap();
    fs::write(home.user_settings(), text.replacen("{", "{\n  \"model\": \"opus\",", 1)).unwrap();
    assert_eq!(home.setup(&["--undo"]).1["allow_rule"].0, "undone");
    let text = fs::read_to_string(home.user_settings()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({"model": "opus"}));
    assert!(!home.path("home/.claude/settings.json.before-claude-peers").exists(), "there was nothing before");
}

#[test]
fn plugin_has_its_own_rule() {
    let home = Home::new();
    plugin::install(&home.path("home"));
    let settings = fs::read(home.user_settings()).unwrap();
    assert_eq!(home.setup(&[]).1["allow_rule"].0, "done");
    assert_eq!(home.permissions()["allow"], json!([PLUGINS]));
    // The plugin stays, so its rule stays too. A full undo removes the rule.
    assert!(!home.setup(&["--undo", "--register-only"]).1.contains_key("allow_rule"));
    assert_eq!(home.permissions()["allow"], json!([PLUGINS]));
    assert_eq!(home.setup(&["--undo"]).1["allow_rule"].0, "undone");
    assert_eq!(fs::read(home.user_settings()).unwrap(), settings);
}

#[test]
fn malformed_settings_are_reported_and_kept() {
    let home = Home::new();
    let text = "{\n  \"permissions\": {\"allow\": 1}\n}";
    home.write_user_settings(text);
    for (arguments, step) in
        [(&[][..], "hooks"), (&["--no-hooks"], "allow_rule"), (&["--undo"], "hooks"), (&["--undo", "--no-hooks"], "allow_rule")]
    {
        let (code, steps) = home.setup(arguments);
        let failed: Vec<_> = steps.iter().filter(|(_, (state, _))| state == "failed").collect();
        assert_eq!((code, failed.len()), (1, 1), "{arguments:?}: {steps:?}");
        assert!(failed[0].0 == step && failed[0].1.1.contains("settings.json, line 2, column 28: "), "{failed:?}");
        assert_eq!(fs::read_to_string(home.user_settings()).unwrap(), text);
    }
}
