//! `claude-peers doctor` finds real faults and reports them with a fix. The host tests cover faults that need a service manager.

mod agents;
mod claude;
mod database;
mod hooks;
mod link;
mod policy;
mod sockets;

use crate::support::{Broker, Session, events::Peer, eventually, folder, other::as_another_user};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The uid and gid of `nobody`.
const NOBODY: u32 = 65534;
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The doctor's report and exit code.
struct Visit {
    code: i32,
    checks: Vec<Value>,
}

impl Visit {
    fn of(mut command: Command) -> Self {
        let output = command.arg("--json").output().unwrap();
        let (said, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let report: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("no JSON ({e}): {said:?} {log}"));
        let (code, checks) = (output.status.code().unwrap(), report["checks"].as_array().unwrap().clone());
        let failed = checks.iter().any(|check| check["state"] == "failed");
        assert_eq!((report["ok"].as_bool(), code), (Some(!failed), i32::from(failed)), "{said}");
        Self { code, checks }
    }

    /// The findings of a check as text.
    fn findings(&self, check: &str) -> Vec<String> {
        let found = self.checks.iter().filter(|finding| finding["check"] == check);
        found.map(|finding| format!("{}: {}", finding["state"].as_str().unwrap(), finding["what"].as_str().unwrap())).collect()
    }

    /// Asserts that a check has a finding with this state, these words and these words in its help.
    fn says(&self, check: &str, state: &str, words: &[&str], help: &str) -> &Value {
        let contains = |finding: &&Value| {
            let text = |field: &str| finding[field].as_str().unwrap_or_default().to_owned();
            finding["check"] == check
                && finding["state"] == state
                && words.iter().all(|word| text("what").contains(word))
                && text("help").contains(help)
        };
        self.checks
            .iter()
            .find(contains)
            .unwrap_or_else(|| panic!("{check} is not {state} with {words:?} and {help:?}: {:#?}", self.checks))
    }
}

/// A stand-in for Claude Code in `home` that reports this version and registers servers.
fn stand_in_for_claude(home: &Path, version: &str) -> PathBuf {
    let path = home.join("claude-stand-in");
    let script = format!(
        r#"#!/bin/sh
[ "$1" = --version ] && echo '{version} (Claude Code)' && exit
[ "$1 $2 $3 $4 $5 $6 $7 $8" = 'mcp add --scope user --transport stdio claude-peers --' ] || exit 9
printf '{{"mcpServers": {{"claude-peers": {{"command": "%s"}}}}}}' "$9" >"$HOME/.claude.json"
"#
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

/// Registers servers as Claude Code does.
fn register(home: &Path, servers: Value) {
    fs::write(home.join(".claude.json"), json!({"numStartups": 1, "mcpServers": servers}).to_string()).unwrap();
}

/// The doctor in the broker's environment without a service manager, with a sound Claude Code.
fn doctor(broker: &Broker, arguments: &[&str]) -> Command {
    let mut command = broker.cli(&[&["doctor"], arguments].concat());
    command.env("XDG_RUNTIME_DIR", broker.folder()).env("CLAUDE_PEERS_CLAUDE", broker.folder().join("claude-stand-in"));
    command
}

/// Runs that doctor.
fn visit(broker: &Broker, arguments: &[&str]) -> Visit {
    Visit::of(doctor(broker, arguments))
}

/// A Claude Code stand-in in the broker's folder, with the server under test registered.
fn with_claude(broker: &Broker) {
    stand_in_for_claude(broker.folder(), "2.1.330");
    register(broker.folder(), json!({"claude-peers": {"type": "stdio", "command": env!("CARGO_BIN_EXE_claude-peers-mcp")}}));
}

#[test]
fn sound_installation_passes_and_lists_routes() {
    let (broker, place) = (Broker::start(), folder());
    with_claude(&broker);
    let connected = |count: usize| {
        eventually("the sessions are connected", || {
            let peers = broker.http().get("/v1/peers?scope=machine").json();
            let peers = peers["peers"].as_array().unwrap();
            (peers.iter().filter(|peer| peer["status"] == "connected").count() == count).then_some(())
        })
    };
    let _pushed = Session::start(&broker, place.path(), "session-a");
    connected(1);
    let visited = visit(&broker, &[]);
    assert_eq!(visited.code, 0, "{:#?}", visited.checks);
    for check in ["settings", "unix-socket", "tcp-socket", "versions", "database", "clock", "claude", "registration", "session"] {
        assert!(visited.findings(check).iter().any(|finding| finding.starts_with("ok: ")), "{check}: {:#?}", visited.checks);
    }
    assert_eq!(visited.findings("service").len(), 1);
    visited.says("session", "ok", &["channel: asked for by CLAUDE_PEERS_DELIVERY, not confirmed yet"], "");
    let _pulling = Session::pulling(&broker, place.path(), "session-b");
    connected(2);
    let visited = visit(&broker, &[]);
    visited.says("session", "warning", &["pull: asked for by CLAUDE_PEERS_DELIVERY", "only when it calls"], "`claude update`");
    assert_eq!(visited.code, 0, "a warning is no failure");

    let output = doctor(&broker, &[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let checks = visited.checks.len();
    assert_eq!(
        text.lines().filter(|line| ["ok ", "warning ", "skipped "].iter().any(|sign| line.starts_with(sign))).count(),
        checks
    );
    let last = text.lines().last().unwrap();
    assert!(last.starts_with(&format!("{checks} checks: ")) && last.contains(" ok, ") && !last.contains("failed"), "{text}");
    assert!(!text.contains('\u{1b}') && output.stderr.is_empty(), "{text}");
}

#[test]
fn missing_broker_does_not_stop_other_checks() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    let visited = visit(&broker, &[]);
    visited.says("unix-socket", "failed", &["no broker runs", broker.socket().to_str().unwrap()], "claude-peers");
    visited.says("database", "ok", &["not there yet"], "");
    visited.says("registration", "ok", &[], "");
    visited.says("session", "skipped", &[], "");
    let text = String::from_utf8(doctor(&broker, &[]).output().unwrap().stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with("FAILED   unix-socket")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("           ") && line.contains("`claude-peers ")), "{text}");
    assert!(text.trim_end().lines().last().unwrap().contains("1 failed"), "{text}");
}

/// One of our programs, run by `nobody` in the broker's environment.
fn as_nobody(broker: &Broker, program: &str, arguments: &[&str]) -> Command {
    let programs = broker.folder().join("programs");
    if !programs.exists() {
        fs::create_dir(&programs).unwrap();
        for path in
            [env!("CARGO_BIN_EXE_claude-peersd"), env!("CARGO_BIN_EXE_claude-peers"), env!("CARGO_BIN_EXE_claude-peers-mcp")]
        {
            let copy = programs.join(Path::new(path).file_name().unwrap());
            fs::copy(path, &copy).unwrap();
            fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(&programs, Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = as_another_user(&programs.join(program));
    command.args(arguments).env("HOME", broker.folder()).env("XDG_RUNTIME_DIR", broker.folder());
    let prepared = broker.command();
    command.envs(prepared.get_envs().filter_map(|(name, value)| Some((name, value?))).filter(|(name, _)| *name != "HOME"));
    command.env("CLAUDE_PEERS_CLAUDE", broker.folder().join("claude-stand-in"));
    command
}

// Versions.

/// A copy of a program patched to report an older version.
fn older(program: &str, folder: &Path) -> PathBuf {
    let mut old = VERSION.to_owned().into_bytes();
    let last = old.last_mut().unwrap();
    *last = if *last == b'9' { b'8' } else { b'9' };
    let mut bytes = fs::read(program).unwrap();
    let places: Vec<usize> =
        bytes.windows(old.len()).enumerate().filter(|(_, bytes)| *bytes == VERSION.as_bytes()).map(|(at, _)| at).collect();
    for at in places {
        bytes[at..at + old.len()].copy_from_slice(&old);
    }
    let path = folder.join(Path::new(program).file_name().unwrap());
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn version_mismatch_is_reported_with_every_path() {
    let (mut broker, packaged) = (Broker::prepared(&[]), folder());
    with_claude(&broker);
    let daemon = older(env!("CARGO_BIN_EXE_claude-peersd"), packaged.path());
    let server = older(env!("CARGO_BIN_EXE_claude-peers-mcp"), packaged.path());
    let said = String::from_utf8(Command::new(&daemon).arg("--version").output().unwrap().stdout).unwrap();
    let old = said.split_whitespace().last().unwrap();
    assert_ne!(old, VERSION);
    let on_path = |command: &mut Command| {
        let path = std::env::join_paths(
            std::iter::once(packaged.path().to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        command.env("PATH", path.unwrap());
    };
    let mut command = doctor(&broker, &[]);
    on_path(&mut command);
    Visit::of(command).says(
        "versions",
        "warning",
        &["other copies are on PATH", old, daemon.to_str().unwrap()],
        "remove the copies",
    );

    // The broker's start command, with the older program instead of the one under test.
    let prepared = broker.command();
    let mut command = Command::new(&daemon);
    command.env_clear().envs(prepared.get_envs().filter_map(|(name, value)| Some((name, value?))));
    broker.launch_as(command);
    let visited = visit(&broker, &[]);
    let words = ["not of one version", &format!("running broker {old} ({})", daemon.display()), VERSION];
    visited.says("versions", "failed", &words, "before an upgrade");

    register(broker.folder(), json!({"claude-peers": {"command": server}}));
    let visited = visit(&broker, &[]);
    visited.says(
        "versions",
        "failed",
        &[&format!("registered MCP server {old} ({})", server.display())],
        "keep one installation",
    );
    visited.says("registration", "failed", &[server.to_str().unwrap(), &format!("but version {old}")], "claude mcp remove");
}

// Settings and the clock.

#[test]
fn invalid_settings_are_reported() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    for (name, value) in [
        ("CLAUDE_PEERS_PORT", "http"),
        ("CLAUDE_PEERS_SOCKET", "run/broker.sock"),
        ("CLAUDE_PEERS_DB", "peers.db"),
        ("CLAUDE_PEERS_DELIVERY", "pigeon"),
        ("CLAUDE_PEERS_RATE_LIMIT", "many"),
    ] {
        let mut command = doctor(&broker, &[]);
        command.env(name, value);
        Visit::of(command).says("settings", "failed", &[name, value, "allowed"], "unset");
    }
}

#[test]
fn clock_behind_the_database_is_reported() {
    let mut broker = Broker::start();
    with_claude(&broker);
    let peer = Peer::register(&broker.http(), "peer", json!({}));
    broker.http().post("/v1/send", &json!({"to": peer.id, "text": "hello"}));
    visit(&broker, &[]).says("clock", "ok", &[], "");
    assert!(broker.terminate().success());
    let database = Connection::open(broker.database()).unwrap();
    database.execute("UPDATE message SET sent_at = sent_at + 7200000", []).unwrap();
    drop(database);
    visit(&broker, &[]).says("clock", "warning", &["1 h before the newest message was sent"], "timedatectl");
}
