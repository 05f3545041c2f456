//! Setup beside our plugin, which brings its own MCP server and hooks, and the files that record the plugin.

use super::{Home, Steps, states};
use crate::support::plugin;
use serde_json::Value;
use std::fs;

/// Asserts that setup leaves the registration and the hooks alone and says so. Returns its steps.
fn sets_up_the_rest(home: &Home, is_right: fn(&str) -> bool) -> Steps {
    let before = (home.registration(), fs::read(home.user_settings()).unwrap());
    let (code, steps) = home.setup(&["--no-allow"]);
    assert_eq!(code, 0, "{steps:?}");
    for step in ["registration", "hooks"] {
        let (state, said) = &steps[step];
        assert!(state == "already" && is_right(said), "{steps:?}");
    }
    assert_eq!((home.registration(), fs::read(home.user_settings()).unwrap()), before);
    steps
}

#[test]
fn plugin_keeps_registration_and_hooks() {
    let home = Home::new();
    plugin::install(&home.path("home"));
    let steps = sets_up_the_rest(&home, |said| said.contains("to the plugin peers@claude-peers") && !said.contains("beside"));
    assert_eq!(home.registration(), Value::Null);
    // The service is set up anyway.
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
fn setup_beside_a_later_plugin_is_reported() {
    let home = Home::new();
    assert_eq!(home.setup(&[]).0, 0);
    plugin::install(&home.path("home"));
    sets_up_the_rest(&home, |said| said.contains("`claude-peers setup --undo --register-only` removes th"));

    let (code, steps) = home.setup(&["--undo", "--register-only"]);
    let undone = ["allow_rule", "hooks", "registration"].map(|step| (step, "undone"));
    assert_eq!((code, states(&steps)), (0, undone.to_vec()), "{steps:?}");
    assert_eq!(home.registration(), Value::Null);
    let settings = fs::read_to_string(home.user_settings()).unwrap();
    assert!(settings.contains("\"peers@claude-peers\": true") && !settings.contains(" hook "), "{settings}");
}

#[test]
fn disabled_or_project_plugin_counts_as_none() {
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
fn unreadable_file_is_reported_once() {
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
        // Setup skips the steps that the plugin might have done.
        let (state, said) = &steps["registration"];
        assert!(state == "skipped" && said.contains("cannot be told") && !said.contains(&named), "{steps:?}");
        assert_eq!((home.registration(), fs::read_to_string(home.path(file)).unwrap().as_str()), (Value::Null, text));
        // If the step for hooks is absent, the registration step reports it.
        for arguments in [&["--no-hooks"][..], &["--register-only"]] {
            let (code, steps) = home.setup(arguments);
            assert!(code == 1 && tells(&steps["registration"]), "{arguments:?}: {steps:?}");
        }
        // Undo does not depend on it.
        let (code, steps) = home.setup(&["--undo", "--no-hooks", "--no-allow"]);
        let (state, said) = &steps["registration"];
        assert!(code == 0 && state == "already" && said.contains(&named), "{steps:?}");
    }
}

#[test]
fn disabled_hooks_are_installed_and_reported() {
    let home = Home::new();
    home.write_user_settings(r#"{"disableAllHooks": true}"#);
    for state in ["done", "already"] {
        let (code, steps) = home.setup(&[]);
        assert_eq!((code, steps["hooks"].0.as_str()), (0, state), "{steps:?}");
        assert!(steps["hooks"].1.contains("sets `disableAllHooks`, so it does not run: messages still arrive"), "{steps:?}");
    }
}
