//! Bad input, and a broker that is away.

use super::Scene;
use crate::support::{broker::signal, eventually};
use serde_json::json;
use std::{
    fs,
    os::unix::net::UnixListener,
    time::{Duration, Instant},
};

#[test]
fn what_a_hook_cannot_understand_is_said_to_nobody_but_the_log() {
    let scene = Scene::new();
    scene.send("hello");
    let good = r#"{"session_id": "s-1"}"#;
    for (event, input, variables, problem) in [
        ("PostToolUse", "{\"session_id\": ", "", "cannot be read"),
        ("Stop", "", "CLAUDE_CODE_SESSION_ID=", "no session"),
        ("Stop", " ", "", "cannot be read"),
        ("SessionEnd", "[1]", "", "cannot be read"),
        ("Sneeze", good, "", "Sneeze"),
        ("''", good, "", "is unknown"),
        ("PostToolUse", "{}", "", "no session"),
        ("Stop", r#"{"session_id": ""}"#, "", "no session"),
        ("PostToolUse", good, "CLAUDE_PID=", "CLAUDE_PID"),
        ("Stop", good, "CLAUDE_PID=claude", "CLAUDE_PID"),
    ] {
        let before = scene.broker.log().len();
        scene.claude.raw_hook(event, input, variables).left_silently();
        eventually(problem, || scene.broker.log()[before..].lines().any(|line| line.contains(problem)).then_some(()));
    }
    assert_eq!(scene.peer()["waiting"], 1);
}

#[test]
fn a_broker_that_is_away_or_hangs_holds_no_session_up() {
    let mut scene = Scene::new();
    let pid = scene.broker.pid();
    signal(pid, "STOP");
    let begun = Instant::now();
    for event in ["PostToolUse", "UserPromptSubmit", "SessionEnd", "Sneeze"] {
        scene.claude.hook(event, "s-1", json!({"reason": "other"})).left_silently();
    }
    // Generous for a busy machine; `benches` measures.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    signal(pid, "CONT");
    scene.broker.kill();
    for event in ["PostToolUse", "UserPromptSubmit", "SessionEnd"] {
        scene.claude.hook(event, "s-1", json!({})).left_silently();
    }
    let socket = scene.broker.socket();
    drop(fs::remove_file(&socket));
    let _full = UnixListener::bind(&socket).unwrap();
    for event in ["PostToolUse", "SessionEnd"] {
        scene.claude.hook(event, "s-1", json!({})).left_silently();
    }
}
