//! Setup and the hook in Claude Code's settings.

use super::Home;
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

#[test]
fn foreign_hooks_survive_setup_and_undo() {
    let theirs =
        "{\"model\":\"opus\",\n\t\"hooks\": {\"Stop\": [{ \"hooks\": [{\"type\": \"command\",  \"command\": \"beep\"}]} ]}}";
    let home = Home::new();
    fs::write(home.path("home/.config/other"), "not ours").unwrap();
    home.write_user_settings(theirs);
    fs::set_permissions(home.user_settings(), fs::Permissions::from_mode(0o640)).unwrap();
    let before = home.tree();
    let (code, steps) = home.setup(&[]);
    assert_eq!((code, steps["hooks"].0.as_str()), (0, "done"), "{steps:?}");
    let text = fs::read_to_string(home.user_settings()).unwrap();
    assert!(text.contains("{ \"hooks\": [{\"type\": \"command\",  \"command\": \"beep\"}]}"), "{text}");
    let settings: Value = serde_json::from_str(&text).unwrap();
    let cli = env!("CARGO_BIN_EXE_claude-peers");
    let hook = json!({
        "type": "command", "command": format!("[ ! -x {cli} ] || exec {cli} hook UserPromptSubmit"), "async": true, "timeout": 5,
    });
    assert_eq!(settings["hooks"]["UserPromptSubmit"], json!([{"hooks": [hook]}]));
    assert_eq!(settings["hooks"].as_object().unwrap().len(), 2);
    assert_eq!(fs::metadata(home.user_settings()).unwrap().permissions().mode() & 0o777, 0o640);
    let copy = home.path("home/.claude/settings.json.before-claude-peers");
    assert_eq!(fs::read_to_string(&copy).unwrap(), theirs);

    assert_eq!(home.setup(&["--undo"]).1["hooks"].0, "undone");
    assert_eq!(home.tree(), before);

    // The file is changed between the two.
    assert_eq!(home.setup(&[]).0, 0);
    let text = fs::read_to_string(home.user_settings()).unwrap().replace("opus", "sonnet");
    fs::write(home.user_settings(), text).unwrap();
    assert_eq!(home.setup(&["--undo"]).1["hooks"].0, "undone");
    let text = fs::read_to_string(home.user_settings()).unwrap();
    assert!(text.contains("\"sonnet\"") && text.contains("beep") && !text.contains("claude-peers"), "{text}");
    assert_eq!(fs::read_to_string(&copy).unwrap(), theirs, "what it was is not lost");
}

#[test]
fn unwanted_broken_or_foreign_hooks_are_kept() {
    let home = Home::new();
    assert!(!home.setup(&["--no-hooks"]).1.contains_key("hooks"));
    assert!(!fs::read_to_string(home.user_settings()).unwrap().contains("hooks"));
    assert!(!home.setup(&["--undo", "--no-hooks"]).1.contains_key("hooks"));
    assert!(!home.user_settings().exists());

    for (text, place) in
        [("{\n  \"hooks\": {},\n  oops\n}", "line 3, column 3"), (r#"{"hooks": {"Stop": 1}}"#, "line 1, column 20")]
    {
        home.write_user_settings(text);
        for arguments in [&[][..], &["--undo"]] {
            let (code, steps) = home.setup(arguments);
            let (state, said) = &steps["hooks"];
            assert_eq!((code, state.as_str()), (1, "failed"), "{steps:?}");
            assert!(said.contains(&format!("{}, {place}: ", home.user_settings().display())), "{said}");
            assert_eq!(fs::read_to_string(home.user_settings()).unwrap(), text);
        }
    }

    // Setup replaces the hooks of another copy; undo leaves them alone.
    let other = home.path("bin/claude-peers");
    home.program("claude-peers", "#!/bin/sh\n");
    let text = format!(r#"{{"hooks": {{"Stop": [{{"hooks": [{{"command": "{} hook Stop"}}]}}]}}}}"#, other.display());
    home.write_user_settings(&text);
    assert_eq!(home.setup(&["--undo"]).1["hooks"].0, "already");
    assert_eq!(fs::read_to_string(home.user_settings()).unwrap(), text);
    let (state, said) = home.setup(&[]).1["hooks"].clone();
    assert!(state == "done" && said.contains(&format!("in place of those of {}", other.display())), "{state}: {said}");

    let mut old = Home::new();
    old.env.push(("CLAUDE_VERSION", "2.1.212".to_owned()));
    let (code, steps) = old.setup(&[]);
    assert_eq!((code, steps["hooks"].0.as_str()), (0, "skipped"), "{steps:?}");
}

#[test]
fn hooks_are_written_through_a_symbolic_link() {
    let home = Home::new();
    fs::create_dir_all(home.path("home/.claude")).unwrap();
    fs::create_dir_all(home.path("home/dotfiles")).unwrap();
    let file = home.path("home/dotfiles/claude.json");
    fs::write(&file, "{}\n").unwrap();
    std::os::unix::fs::symlink(&file, home.user_settings()).unwrap();
    assert_eq!(home.setup(&[]).0, 0);
    assert!(fs::symlink_metadata(home.user_settings()).unwrap().is_symlink());
    assert!(fs::read_to_string(&file).unwrap().contains(" hook UserPromptSubmit"));
    assert_eq!(home.setup(&["--undo"]).0, 0);
    assert_eq!(fs::read_to_string(&file).unwrap(), "{}\n");
}

#[test]
fn hooks_of_earlier_versions_are_replaced() {
    let home = Home::new();
    let theirs = "{ \"hooks\": {\"Stop\": [{\"hooks\": [{ \"type\": \"command\",  \"command\": \"beep\" }]}]} }\n";
    let cli = env!("CARGO_BIN_EXE_claude-peers");
    let mut settings: Value = serde_json::from_str(theirs).unwrap();
    let old = [
        ("SessionStart", format!("exec {cli} hook SessionStart"), true),
        ("Stop", format!("exec {cli} hook Stop"), true),
        ("PostToolUse", format!("{cli} hook PostToolUse"), false),
        ("UserPromptSubmit", format!("exec '{cli}' hook UserPromptSubmit"), false),
        ("UserPromptSubmit", format!("exec {cli} hook TurnStart"), true),
        ("SessionEnd", format!("exec \"{cli}\" hook SessionEnd"), false),
    ];
    for (event, command, wakes) in old {
        let mut hook = json!({"type": "command", "command": command, "timeout": 5});
        if wakes {
            hook["asyncRewake"] = json!(true);
        }
        let groups = settings["hooks"].as_object_mut().unwrap().entry(event).or_insert(json!([]));
        groups.as_array_mut().unwrap().push(json!({"hooks": [hook]}));
    }
    for copy in [Some(theirs), None] {
        home.write_user_settings(&serde_json::to_string_pretty(&settings).unwrap());
        if let Some(copy) = copy {
            fs::write(home.path("home/.claude/settings.json.before-claude-peers"), copy).unwrap();
        }
        let (code, steps) = home.setup(&[]);
        assert_eq!((code, steps["hooks"].0.as_str()), (0, "done"), "{steps:?}");
        let text = fs::read_to_string(home.user_settings()).unwrap();
        let hooks = serde_json::from_str::<Value>(&text).unwrap()["hooks"].clone();
        assert_eq!(hooks["Stop"], json!([{"hooks": [{"type": "command", "command": "beep"}]}]));
        assert_eq!((hooks.as_object().unwrap().len(), text.matches(" hook ").count()), (2, 1), "{text}");
        assert_eq!(home.setup(&[]).1["hooks"].0, "already");
        assert_eq!(home.setup(&["--undo"]).0, 0);
        let text = fs::read_to_string(home.user_settings()).unwrap();
        if copy.is_some() {
            assert_eq!(text, theirs);
        }
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), serde_json::from_str::<Value>(theirs).unwrap());
        assert!(!home.path("home/.claude/settings.json.before-claude-peers").exists());
    }
}

#[test]
fn hook_command_is_silent_without_its_program() {
    let home = Home::new();
    assert_eq!(home.setup(&[]).0, 0);
    let command = |file: &Path| {
        let settings: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        settings["hooks"]["UserPromptSubmit"][0]["hooks"][0]["command"].as_str().unwrap().to_owned()
    };
    let ours = command(&home.user_settings());
    let cli = env!("CARGO_BIN_EXE_claude-peers");
    let plugins = command(&Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/plugin/peers/hooks/hooks.json"));
    let bin = Path::new(cli).parent().unwrap().to_str().unwrap();
    for (command, path) in [
        (ours.clone(), "/usr/bin:/bin"),
        (ours.replace(cli, "/nowhere/claude-peers"), "/usr/bin:/bin"),
        (ours.replace(cli, "'/no where/claude-peers'"), "/usr/bin:/bin"),
        (plugins.clone(), bin),
        (plugins, "/nowhere"),
    ] {
        let input = fs::File::open(home.user_settings()).unwrap(); // JSON, but not a hook's input
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &command]).env_clear().env("PATH", path).env("HOME", home.path("home")).stdin(input);
        let Output { status, stdout, stderr } = shell.output().unwrap();
        assert_eq!((status.code(), stdout.len(), stderr.len()), (Some(0), 0, 0), "{command}: {stderr:?}");
    }
}

#[test]
fn effect_on_running_sessions_is_explained() {
    let mut home = Home::new();
    for arguments in [&[][..], &["--no-hooks"]] {
        let said = home.said(arguments);
        assert!(said.ends_with("\nSessions that start from now on get their messages at once.\n"), "{said}");
    }
    home.env.push(("CLAUDE_VERSION", "2.1.223".to_owned()));
    let said = home.said(&[]);
    let (_, end) = said.split_once("\nSessions of Claude Code 2.1.223 have no inbox, which needs 2.1.224").expect(&said);
    for words in ["with a session's next call of one of our tools", "development-channels server:claude-peers"] {
        assert!(end.contains(words), "{words}: {said}");
    }
}
