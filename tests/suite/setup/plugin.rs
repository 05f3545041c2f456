//! Setup beside our plugin, which brings the MCP server and the hooks by itself; and the files that say whether it is there.

use super::{Home, states};
use crate::support::plugin;
use serde_json::Value;
use std::fs;

#[test]
fn registration_and_hooks_are_left_to_the_plugin() {
    let home = Home::new();
    plugin::install(&home.path("home"));
    let settings = fs::read(home.user_settings()).unwrap();
    let (code, steps) = home.setup(&["--no-allow"]);
    assert_eq!(code, 0, "{steps:?}");
    for step in ["registration", "hooks"] {
        let (state, said) = &steps[step];
        assert_eq!(state, "already", "{steps:?}");
        assert!(said.contains("to the plugin peers@claude-peers") && !said.contains("beside"), "{said}");
    }
    assert_eq!((home.registration(), fs::read(home.user_settings()).unwrap()), (Value::Null, settings));
    // The service is set up all the same.
    assert_eq!((steps["units"].0.as_str(), steps["round_trip"].0.as_str()), ("done", "done"), "{steps:?}");

    let (code, steps) = home.setup(&["--undo"]);
    let expected = [
        ("allow_rule", "already"),
        ("hooks", "already"),
        ("registration", "already"),
        ("sockets", "undone"),
        ("units", "undone"),
    ];
    assert_eq!((code, states(&steps)), (0, expected.to_vec()), "{steps:?}");
    let said = &steps["registration"].1;
    assert!(said.contains("stays") && said.contains("`claude plugin uninstall peers@claude-peers`"), "{said}");
}

#[test]
fn what_setup_did_before_the_plugin_came_is_named_and_can_be_taken_out() {
    let home = Home::new();
    assert_eq!(home.setup(&[]).0, 0);
    plugin::install(&home.path("home"));
    let (registered, settings) = (home.registration(), fs::read(home.user_settings()).unwrap());
    let (code, steps) = home.setup(&["--no-allow"]);
    assert_eq!(code, 0, "{steps:?}");
    for step in ["registration", "hooks"] {
        let (state, said) = &steps[step];
        assert_eq!(state, "already", "{steps:?}");
        assert!(said.contains("`claude-peers setup --undo --register-only` removes th"), "{said}");
    }
    assert_eq!((home.registration(), fs::read(home.user_settings()).unwrap()), (registered, settings));

    let (code, steps) = home.setup(&["--undo", "--register-only"]);
    let undone = ["allow_rule", "hooks", "registration"].map(|step| (step, "undone"));
    assert_eq!((code, states(&steps)), (0, undone.to_vec()), "{steps:?}");
    assert_eq!(home.registration(), Value::Null);
    let settings = fs::read_to_string(home.user_settings()).unwrap();
    assert!(settings.contains("\"peers@claude-peers\": true") && !settings.contains(" hook "), "{settings}");
}

#[test]
fn a_plugin_that_is_switched_off_or_only_a_projects_counts_as_none() {
    let home = Home::new();
    plugin::install(&home.path("home"));
    plugin::switch(&home.path("home"), false);
    let (code, steps) = home.setup(&["--dry-run"]);
    assert_eq!((code, steps["registration"].0.as_str(), steps["hooks"].0.as_str()), (0, "planned", "planned"), "{steps:?}");

    plugin::switch(&home.path("home"), true);
    let installed = home.path("home/.claude/plugins/installed_plugins.json");
    let text = fs::read_to_string(&installed).unwrap().replace("\"user\"", "\"project\"");
    fs::write(&installed, text).unwrap();
    let (code, steps) = home.setup(&[]);
    assert_eq!((code, steps["registration"].0.as_str(), steps["hooks"].0.as_str()), (0, "done", "done"), "{steps:?}");
}

#[test]
fn a_file_that_cannot_be_understood_is_told_once_with_its_place() {
    for (file, text, place) in [
        ("home/.claude/settings.json", "{\n  oops\n}", "line 2, column 3"),
        ("home/.claude/settings.json", r#"{"enabledPlugins": ["peers@claude-peers"]}"#, "line 1, column 19"),
        ("home/.claude/plugins/installed_plugins.json", "{\n", "line 2, column 0"),
    ] {
        let home = Home::new();
        plugin::install(&home.path("home"));
        fs::write(home.path(file), text).unwrap();
        let named = format!("{}, {place}: ", home.path(file).display());
        let tells = |(state, said): &(String, String)| state == "failed" && said.contains(&named) && said.contains("correct it");
        let (code, steps) = home.setup(&[]);
        assert!(code == 1 && tells(&steps["hooks"]), "{steps:?}");
        let failed: Vec<_> = steps.iter().filter(|(_, (state, _))| state == "failed").map(|(step, _)| step).collect();
        assert_eq!(failed, ["hooks"], "{steps:?}");
        // What might stand twice then is not done.
        let (state, said) = &steps["registration"];
        assert!(state == "skipped" && said.contains("cannot be told") && !said.contains(&named), "{steps:?}");
        assert_eq!((home.registration(), fs::read_to_string(home.path(file)).unwrap().as_str()), (Value::Null, text));
        // Where no step of the hooks follows, that of the registration tells.
        for arguments in [&["--no-hooks"][..], &["--register-only"]] {
            let (code, steps) = home.setup(arguments);
            assert!(code == 1 && tells(&steps["registration"]), "{arguments:?}: {steps:?}");
        }
        // Nothing that is taken back depends on it.
        let (code, steps) = home.setup(&["--undo", "--no-hooks", "--no-allow"]);
        let (state, said) = &steps["registration"];
        assert!(code == 0 && state == "already" && said.contains(&named), "{steps:?}");
    }
}

#[test]
fn hooks_that_are_switched_off_are_put_in_and_told_of() {
    let home = Home::new();
    home.write_user_settings(r#"{"disableAllHooks": true}"#);
    for state in ["done", "already"] {
        let (code, steps) = home.setup(&[]);
        assert_eq!((code, steps["hooks"].0.as_str()), (0, state), "{steps:?}");
        assert!(steps["hooks"].1.contains("sets `disableAllHooks`, so it does not run: messages still arrive"), "{steps:?}");
    }
}
