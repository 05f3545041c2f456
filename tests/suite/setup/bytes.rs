//! Setup keeps the user's settings byte for byte, and adds the same as the plugin.

use super::Home;
use serde_json::{Value, json};
use std::{fs, path::Path};

const RULE: &str = "mcp__claude-peers";

/// The text without whitespace, which may change around our entries.
fn dense(text: &str) -> String {
    text.split_whitespace().collect()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap()
}

#[test]
fn setup_keeps_foreign_settings_byte_for_byte() {
    let home = Home::new();
    let copy = home.path("home/.claude/settings.json.before-claude-peers");
    let beep = "{ \"hooks\": [{ \"type\": \"command\",   \"command\": \"beep\" }] }";
    let tabs = format!("{{\n\t\"hooks\": {{\n\t\t\"Stop\": [\n\t\t\t{beep}\n\t\t]\n\t}},\n\t\"x\" : \"\\u00e9\"\n}}\n");
    // A file, and a part that stays as it is.
    for (text, theirs) in [
        ("{\"permissions\": {\"allow\": [\"Bash(ls  -l)\"], \"deny\" : [ \"X\" ]}}", "\"deny\" : [ \"X\" ]"),
        ("{\"permissions\": {\"ask\": []}}", "\"ask\": []"),
        ("{}", ""),
        ("{\n}\n", ""),
        ("{\n  \"model\": \"opus\"\n}\n", "\n  \"model\": \"opus\""),
        ("{ \"a\" :  [ 1,2 ],\"x\":1.50}", "\"a\" :  [ 1,2 ]"),
        (&tabs, &format!("{{\n\t\"hooks\": {{\n\t\t\"Stop\": [\n\t\t\t{beep}")),
        (
            "{\r\n  \"a\": 1,\r\n  \"hooks\": {\r\n    \"PreToolUse\": []\r\n  }\r\n}\r\n",
            "{\r\n  \"a\": 1,\r\n  \"hooks\": {\r\n    \"PreToolUse\": []",
        ),
        (
            "\u{feff}{\n    \"permissions\": {\n        \"ask\": []\n    }\n}",
            "\u{feff}{\n    \"permissions\": {\n        \"ask\": []",
        ),
    ] {
        home.write_user_settings(text);
        assert_eq!(home.setup(&[]).0, 0, "{text}");
        let now = fs::read_to_string(home.user_settings()).unwrap();
        assert!(now.contains(theirs), "{theirs:?}: {now:?}");
        let settings = parsed(&now);
        assert_eq!(settings["permissions"]["allow"].as_array().unwrap().last(), Some(&json!(RULE)), "{now}");
        assert_eq!(settings["hooks"]["UserPromptSubmit"].as_array().unwrap().len(), 1, "{now}");
        // Another copy than setup's own: the file is edited, not restored.
        fs::write(&copy, "{\"other\": true}").unwrap();
        assert_eq!(home.setup(&["--undo"]).0, 0, "{text}");
        let now = fs::read_to_string(home.user_settings()).unwrap();
        assert!(now.contains(theirs) && dense(&now) == dense(text), "{text:?}: {now:?}");
        fs::remove_file(&copy).unwrap();
    }
}

/// Claude Code takes the last of repeated keys, and half an emoji in a string.
#[test]
fn odd_settings_are_read_and_kept() {
    let home = Home::new();
    for text in [
        r#"{"hooks": {"Stop": 1}, "model": "opus", "hooks": {"PreToolUse": []}}"#,
        r#"{"permissions": {"allow": ["X"]}, "hooks": {"Stop": null}, "permissions": {"allow": ["Y"]}}"#,
        r#"{"hooks": {"Stop": [{"hooks": [{"type": "command", "command": 1, "async": "yes"}, null]}, 7]}}"#,
        r#"{"a": "\ud83d", "b": "\uD83D \\ud83d \ude00 \ud83d\ude00 \uD83Dx", "c": "é\ud83d"}"#,
    ] {
        home.write_user_settings(text);
        for state in ["done", "already"] {
            let (code, steps) = home.setup(&[]);
            assert_eq!((code, &*steps["hooks"].0, &*steps["allow_rule"].0), (0, state, state), "{text}: {steps:?}");
        }
        let now = fs::read_to_string(home.user_settings()).unwrap();
        assert!(now.matches("claude-peers hook").count() == 1 && now.contains(RULE), "{now}");
        fs::write(home.path("home/.claude/settings.json.before-claude-peers"), "{\"other\": true}").unwrap();
        assert_eq!(home.setup(&["--undo"]).0, 0, "{text}");
        assert_eq!(dense(&fs::read_to_string(home.user_settings()).unwrap()), dense(text));
        fs::remove_file(home.path("home/.claude/settings.json.before-claude-peers")).unwrap();
    }
}

#[test]
fn foreign_hook_in_the_same_group_stays() {
    let home = Home::new();
    let settings = |hooks: Value| json!({"hooks": {"Stop": [{"hooks": hooks}]}, "other": true});
    let ours = format!("{} hook Stop", env!("CARGO_BIN_EXE_claude-peers"));
    home.write_user_settings(&settings(json!([{"command": "beep"}, {"command": ours}])).to_string());
    assert_eq!(home.setup(&["--undo"]).0, 0);
    assert_eq!(parsed(&fs::read_to_string(home.user_settings()).unwrap()), settings(json!([{"command": "beep"}])));
}

#[test]
fn plugin_and_setup_add_the_same() {
    let home = Home::new();
    assert_eq!(home.setup(&[]).0, 0);
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/plugin/peers");
    let text = |file: &str| fs::read_to_string(plugin.join(file)).unwrap();
    let search = "PATH=\"$PATH:/usr/local/bin:/usr/bin:/opt/homebrew/bin:$HOME/.cargo/bin:$HOME/.local/bin\"; ";
    let plugins = text("hooks/hooks.json")
        .replace(json!(search).to_string().trim_matches('"'), "")
        .replace("! command -v claude-peers >/dev/null ||", "[ ! -x claude-peers ] ||");
    let setups = fs::read_to_string(home.user_settings()).unwrap().replace(env!("CARGO_BIN_EXE_claude-peers"), "claude-peers");
    assert_eq!(parsed(&plugins)["hooks"], parsed(&setups)["hooks"]);
    assert_eq!(parsed(&text(".claude-plugin/plugin.json"))["version"], env!("CARGO_PKG_VERSION"));
    let server = &parsed(&text(".mcp.json"))["mcpServers"]["claude-peers"];
    assert_eq!(server["args"], json!(["-c", format!("{search}exec claude-peers-mcp")]));
}
