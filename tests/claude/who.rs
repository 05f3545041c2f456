//! A session's identity does not depend on how it was started or on the programs it starts.

use crate::{
    Test,
    model::Task,
    session::Claude,
    support::{eventually, mcp::SERVER},
    world::World,
};
use serde_json::{Value, json};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

pub const TESTS: &[(&str, Test)] = &[
    ("who::session_started_by_a_pnpm_shim", shim),
    ("who::session_started_by_a_forking_launcher", launcher),
    ("who::session_started_as_a_wrapped_program", wrapped),
    ("who::program_from_its_shell_takes_nothing", visitor),
    ("who::nested_session_is_a_separate_peer", nested),
];

/// A copy of the program under another name, as packagers install it; a symbolic link would be resolved.
fn named(world: &World, claude: &Path, name: &str) -> PathBuf {
    let folder = world.home().join("packaged");
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join(name);
    fs::hard_link(claude, &program).or_else(|_| fs::copy(claude, &program).map(drop)).unwrap();
    program
}

/// A shell script named `claude`.
fn script(world: &World, text: &str) -> PathBuf {
    let file = world.home().join("bin/claude");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    file
}

/// Checks that a session started by this script is reached through its inbox.
fn is_reached(world: &World, text: &str, program: &Path) {
    let script = script(world, text);
    let bob = Claude::run(world, "bob", "bob", &[], &[script.to_str().unwrap()]);
    bob.reached();
    assert_eq!(fs::read_link(format!("/proc/{}/exe", bob.pid)).unwrap(), program);
    for text in ["Is the parser done?", "And the lexer?"] {
        let id = world.send("bob", text);
        bob.lets_in(&id, text);
    }
}

fn shim(claude: &Path) {
    let world = World::hooked(claude);
    let program = named(&world, claude, "claude.exe");
    is_reached(&world, &format!("exec '{}' \"$@\"", program.display()), &program);
}

fn launcher(claude: &Path) {
    let world = World::hooked(claude);
    is_reached(&world, &format!("'{}' \"$@\"; code=$?; exit $code", claude.display()), claude);
}

fn wrapped(claude: &Path) {
    let world = World::hooked(claude);
    let program = named(&world, claude, ".claude-wrapped");
    is_reached(&world, &format!("exec '{}' \"$@\"", program.display()), &program);
}

/// A session whose model may use its shell.
fn with_shell(world: &World) -> Claude<'_> {
    let bob = Claude::with(world, "bob", &["--allowedTools", "Bash"]);
    bob.reached();
    bob
}

/// Has its model run a shell command.
fn shell(world: &World, bob: &Claude, command: &str) -> Task {
    let task = world.model.plan("bob", &[("Bash", json!({"command": command, "description": "run it"}))]);
    bob.prompt(&task.cue);
    task
}

/// Checks that the session kept its id and lets in both the message sent while its shell worked and a new one.
fn goes_on(world: &World, bob: &Claude, id: &Value, meanwhile: &Value) {
    bob.lets_in(meanwhile, "Meanwhile.");
    assert_eq!(bob.reached()["id"], *id);
    let sent = world.send(id.as_str().unwrap(), "Are you still there?");
    bob.lets_in(&sent, "Are you still there?");
    assert_eq!(bob.times_shown("Meanwhile."), 1);
}

fn visitor(claude: &Path) {
    let world = World::hooked(claude);
    let bob = with_shell(&world);
    let id = bob.reached()["id"].clone();
    // The MCP client names another agent; the environment is that of the session.
    let client = json!({"name": "codex-mcp-client", "version": "1"});
    let says = [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": "check_messages", "arguments": {}}}),
        json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call",
            "params": {"name": "list_peers", "arguments": {"scope": "machine"}}}),
    ];
    let at = |name: &str| bob.directory().join(name);
    fs::write(at("says"), says.map(|line| format!("{line}\n")).concat()).unwrap();
    let task = shell(&world, &bob, &format!("env >env; (cat says; while [ ! -e end ]; do sleep 0.05; done) | '{SERVER}' >heard"));
    let heard = eventually("the visitor is told who it is", || {
        let heard = fs::read_to_string(at("heard")).ok()?;
        let line = heard.lines().find(|line| line.contains("\"id\":3"))?.to_owned();
        serde_json::from_str::<Value>(&line).ok()
    });
    assert!(fs::read_to_string(at("env")).unwrap().contains(&format!("CLAUDE_CODE_SESSION_ID={}", bob.id())));
    let own = heard["result"]["structuredContent"]["self"]["id"].clone();
    assert!(own.is_string() && own != id, "{heard}");
    let meanwhile = world.send(id.as_str().unwrap(), "Meanwhile.");
    world.broker().message_once("offered", &meanwhile);
    fs::write(at("end"), "").unwrap();
    world.model.request("bob", "the shell's result", |request| request.result(&task.calls[0]).is_some());
    eventually("the visitor has left", || world.peers().iter().all(|peer| peer["id"] != own).then_some(()));
    goes_on(&world, &bob, &id, &meanwhile);
}

fn nested(claude: &Path) {
    let world = World::hooked(claude);
    let bob = with_shell(&world);
    let id = bob.reached()["id"].clone();
    let inner = world.model.plan("inner", &[("mcp__claude-peers__list_peers", json!({"scope": "machine"}))]);
    world.model.hold(&inner.cue);
    let command = format!("cd ../inner && ANTHROPIC_BASE_URL={} claude -p '{}'", world.model.url("inner"), inner.cue);
    world.directory("inner");
    let task = shell(&world, &bob, &command);
    world.model.request("inner", "its first", |_| true);
    let peer = eventually("it is a peer", || world.peers().into_iter().find(|peer| peer["name"] == "inner"));
    assert!(peer["id"] != id && peer["pid"] != bob.pid, "{peer}");
    let meanwhile = world.send(id.as_str().unwrap(), "Meanwhile.");
    let to_inner = world.send("inner", "For the inner one.");
    for message in [&meanwhile, &to_inner] {
        world.broker().message_once("offered", message);
    }
    world.model.release(&inner.cue);
    let request = world.model.request("inner", "who it is", |request| request.result(&inner.calls[0]).is_some());
    let list: Value = serde_json::from_str(&request.result(&inner.calls[0]).unwrap()).unwrap();
    assert_eq!(list["self"]["id"], peer["id"], "{list}");
    world.let_in(&to_inner);
    let request = world.model.request("bob", "the shell's result", |request| request.result(&task.calls[0]).is_some());
    assert!(request.result(&task.calls[0]).unwrap().contains("OK."), "{}", request.news());
    eventually("it has left", || world.peers().iter().all(|known| known["id"] != peer["id"]).then_some(()));
    goes_on(&world, &bob, &id, &meanwhile);
    assert_eq!(bob.times_shown("For the inner one."), 0);
}
