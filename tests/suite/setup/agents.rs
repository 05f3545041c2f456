//! Setup and the agents other than Claude Code. `tests/agents` runs it with the real ones; stand-ins show here what it does with odd
//! files and refusals.

use super::{Home, server};
use crate::support::folder;
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
};

/// A stand-in for Codex, Qwen Code and OpenCode, which adds its entry to a file of one line as they do.
pub const AGENT: &str = r#"#!/bin/sh
name=${0##*/}
[ "$1" = --version ] && { echo "$name-cli 1.2.3"; exit; }
echo "$name $*" >>"$CALLS"
[ -z "$AGENT_SAYS" ] || { echo "$AGENT_SAYS" >&2; exit 1; }
[ -z "$AGENT_LIES" ] || exit 0
for SERVER; do :; done; export SERVER
case $name in
codex) file=$HOME/.codex/config.toml entry='\[mcp_servers\.claude-peers\]\ncommand = ".*"\n';;
qwen) file=$HOME/.qwen/settings.json entry='"claude-peers": \{"command": .*?\}' start='"mcpServers": {' put='"claude-peers": {"command": "'$SERVER'"}';;
opencode) file=$HOME/.config/opencode/opencode.json entry='"claude-peers": \{"type": .*?\}' start='"mcp": {' put='"claude-peers": {"type": "local", "command": ["'$SERVER'"]}';;
esac
export entry start put
perl -0pi -e 's/$ENV{entry}//' "$file"
case "$name $2" in
"codex add") printf '[mcp_servers.claude-peers]\ncommand = "%s"\n' "$SERVER" >>"$file";;
*add) perl -pi -e 's|\Q$ENV{start}\E|$&$ENV{put}|' "$file";;
esac
"#;
const CODEX: &str = "home/.codex/config.toml";
const QWEN: &str = "home/.qwen/settings.json";
const OPENCODE: &str = "home/.config/opencode/opencode.json";
const PLUGIN: &str = "home/.config/opencode/plugin/claude-peers.js";

/// A home with these agents.
fn with(agents: &[&str]) -> Home {
    let home = Home::new();
    for agent in agents {
        home.program(agent, AGENT);
    }
    write(&home, CODEX, "model = 'x' # theirs\n");
    write(&home, QWEN, "{\"mcpServers\": {}}");
    write(&home, OPENCODE, "{\"mcp\": {}}");
    home
}

fn write(home: &Home, file: &str, text: &str) {
    let path = home.path(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn text(home: &Home, file: &str) -> String {
    fs::read_to_string(home.path(file)).unwrap_or_default()
}

/// Runs setup. Returns its exit code, and the steps of the agent, each with its state and words.
fn setup(home: &Home, agent: &str, arguments: &[&str]) -> (i32, Vec<(String, String)>) {
    let Output { status, stdout, .. } = home.command(arguments).arg("--json").output().unwrap();
    let answer: Value = serde_json::from_slice(&stdout).unwrap();
    let steps = answer["steps"].as_array().unwrap().iter().filter(|step| step["step"] == agent);
    let row = |step: &Value| (step["state"].as_str().unwrap().to_owned(), format!("{}; {}", step["what"], step["help"]));
    (status.code().unwrap(), steps.map(row).collect())
}

/// The same where the agent has one step.
#[track_caller]
fn step(home: &Home, agent: &str, arguments: &[&str]) -> (i32, String, String) {
    let (code, mut steps) = setup(home, agent, arguments);
    assert_eq!(steps.len(), 1, "{steps:?}");
    let (state, words) = steps.remove(0);
    (code, state, words)
}

fn states(steps: &[(String, String)]) -> Vec<&str> {
    steps.iter().map(|(state, _)| state.as_str()).collect()
}

/// Another copy of our server, which exists as long as its folder.
fn other_copy() -> (tempfile::TempDir, PathBuf) {
    let folder = folder();
    let path = folder.path().join("claude-peers-mcp");
    fs::write(&path, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (folder, path)
}

#[test]
fn installed_agents_are_registered_and_undone() {
    let home = with(&["codex", "qwen", "opencode"]);
    let before = home.tree();
    let (code, steps) = home.setup(&["--dry-run"]);
    assert_eq!((code, steps["codex"].0.as_str(), home.tree() == before), (0, "planned", true), "{steps:?}");

    let mut trees = Vec::new();
    for state in ["done", "already"] {
        let (code, steps) = home.setup(&[]);
        for agent in ["registration", "codex", "qwen", "opencode"] {
            assert_eq!((code, steps[agent].0.as_str()), (0, state), "{agent}: {steps:?}");
        }
        for missing in ["gemini", "copilot", "cline", "pi"] {
            assert!(!steps.contains_key(missing), "{steps:?}");
        }
        trees.push(home.tree());
    }
    assert!(trees[0] == trees[1], "the second run changes nothing");
    for file in [CODEX, QWEN, OPENCODE] {
        assert!(text(&home, file).contains(server()), "{file}: {}", text(&home, file));
    }
    assert_eq!(states(&setup(&home, "qwen", &["--undo"]).1), ["undone"]);
    assert!(home.tree() == before, "{:?}", home.tree());
    assert_eq!(states(&setup(&home, "opencode", &["--undo"]).1), ["already"; 2]);

    // A package that is removed undoes only what it may have left with agents, and says nothing else.
    assert_eq!(home.setup(&["--register-only"]).1.len(), 1);
    assert_eq!(setup(&home, "codex", &["--agent", "codex"]).0, 0);
    let undone = |steps: super::Steps| steps.into_iter().map(|(step, (state, _))| (step, state)).collect::<Vec<_>>();
    let ours = ["codex", "registration"].map(|step| (step.to_owned(), "undone".to_owned()));
    assert_eq!(undone(home.setup(&["--undo", "--register-only"]).1), ours);
}

#[test]
fn only_named_agents_are_set_up() {
    let home = with(&["codex", "qwen"]);
    let before = home.tree();
    let (code, steps) = home.setup(&["--agent", "codex"]);
    assert_eq!((code, steps["codex"].0.as_str(), steps["round_trip"].0.as_str()), (0, "done", "done"), "{steps:?}");
    assert!(steps["codex"].1.contains("nothing else to do"), "{steps:?}");
    for other in ["registration", "hooks", "allow_rule", "qwen"] {
        assert!(!steps.contains_key(other), "{other}: {steps:?}");
    }
    let (code, steps) = home.setup(&["--undo", "--agent", "codex"]);
    assert_eq!((code, steps.len(), steps["codex"].0.as_str()), (0, 1, "undone"), "{steps:?}");
    assert!(home.unit("claude-peers.socket").exists(), "the service stays");

    let (_, steps) = home.setup(&["--no-agent", "codex", "--no-agent", "claude"]);
    assert_eq!((steps.contains_key("codex"), steps.contains_key("registration")), (false, false), "{steps:?}");
    assert_eq!(steps["qwen"].0, "done");
    assert_eq!(home.setup(&["--undo"]).0, 0);
    assert!(home.tree() == before);

    let home = home.without("claude");
    let (code, steps) = home.setup(&["--agent", "gemini", "--agent", "claude"]);
    assert_eq!((code, steps["gemini"].0.as_str(), steps["registration"].0.as_str()), (1, "failed", "failed"), "{steps:?}");
    assert!(steps["gemini"].1.contains("Gemini CLI is not installed") && steps["gemini"].1.contains("install it"), "{steps:?}");
    assert!(!home.setup(&[]).1.contains_key("registration"), "nobody asked for Claude Code");
    for wrong in
        [&["--agent", "goose"][..], &["--agent", "codex", "--no-agent", "qwen"], &["--register-only", "--agent", "codex"]]
    {
        assert_eq!(home.command(wrong).output().unwrap().status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn registrations_of_others_stay() {
    let home = with(&["codex"]);
    let (_folder, other) = other_copy();
    let other = other.to_str().unwrap();
    let entry = |command: &str| format!("model = 'x'\n[mcp_servers.claude-peers]\ncommand = \"{command}\"\n");
    for (command, put, words, taken) in [
        (other, "already", "another copy's", "already"),
        ("/usr/bin/env", "failed", "for another program: /usr/bin/env", "already"),
        ("/nowhere/claude-peers-mcp", "done", "in place of /nowhere/claude-peers-mcp", "undone"),
        (server(), "already", "register", "undone"),
    ] {
        write(&home, CODEX, &entry(command));
        let (code, state, said) = step(&home, "codex", &["--agent", "codex"]);
        assert_eq!((code, state.as_str()), (i32::from(put == "failed"), put), "{command}: {said}");
        assert!(said.contains(words), "{command}: {said}");
        let now = if put == "done" { server() } else { command };
        assert_eq!(text(&home, CODEX), entry(now));

        write(&home, CODEX, &entry(command));
        let (code, state, said) = step(&home, "codex", &["--undo", "--agent", "codex"]);
        assert_eq!((code, state.as_str()), (0, taken), "{command}: {said}");
        assert_eq!(text(&home, CODEX).contains(command), taken == "already", "{}", text(&home, CODEX));
    }

    let secret = entry("/nowhere/claude-peers-mcp") + "env = { KEY = \"sk-secret\" }\n";
    write(&home, CODEX, &secret);
    let (code, state, said) = step(&home, "codex", &["--agent", "codex"]);
    assert_eq!((code, state.as_str(), text(&home, CODEX)), (1, "failed", secret), "{said}");
    assert!(said.contains("KEY") && !said.contains("sk-secret"), "{said}");
}

#[test]
fn name_without_a_path_is_this_copy_on_path() {
    let home = with(&["codex"]);
    let bare = "[mcp_servers.claude-peers]\ncommand = \"claude-peers-mcp\"\n";
    write(&home, CODEX, bare);
    std::os::unix::fs::symlink(server(), home.path("bin/claude-peers-mcp")).unwrap();
    assert_eq!((step(&home, "codex", &["--agent", "codex"]).1.as_str(), text(&home, CODEX)), ("already", bare.to_owned()));
    fs::remove_file(home.path("bin/claude-peers-mcp")).unwrap();
    assert_eq!(step(&home, "codex", &["--agent", "codex"]).1, "done");
    assert!(text(&home, CODEX).contains(server()));
}

#[test]
fn broken_configuration_of_an_agent_is_kept() {
    let home = with(&["codex", "qwen", "opencode"]);
    for (agent, file, broken, place) in [
        ("codex", CODEX, "model = 'x'\noops\n", "line 2, column "),
        ("qwen", QWEN, "{\n  // theirs\n  oops\n}", "line 4, column 1"),
        ("opencode", OPENCODE, "{\"mcp\": [}", "line 1, column "),
    ] {
        write(&home, file, broken);
        for undo in [&[][..], &["--undo"]] {
            let (code, steps) = setup(&home, agent, &[&["--agent", agent], undo].concat());
            let said = &steps.iter().find(|(state, _)| state == "failed").unwrap_or_else(|| panic!("{steps:?}")).1;
            let place = format!("{}, {place}", home.path(file).display());
            assert!(code == 1 && said.contains(&place) && said.contains("correct it"), "{said}");
            assert_eq!(text(&home, file), broken);
        }
    }
    let called = |agent: &str| home.calls().iter().any(|call| call.starts_with(agent));
    assert!(!called("codex") && !called("qwen") && !called("opencode"), "{:?}", home.calls());
}

#[test]
fn refusing_or_silent_agent_is_reported() {
    let mut home = with(&["codex"]);
    home.env.push(("AGENT_SAYS", "the disk is full".to_owned()));
    let (code, state, said) = step(&home, "codex", &["--agent", "codex"]);
    assert_eq!((code, state.as_str()), (1, "failed"), "{said}");
    assert!(said.contains("`codex mcp add claude-peers -- ") && said.contains("the disk is full"), "{said}");

    home.env[0].0 = "AGENT_LIES";
    let (code, state, said) = step(&home, "codex", &["--agent", "codex"]);
    assert_eq!((code, state.as_str()), (1, "failed"), "{said}");
    assert!(said.contains("reports success, but") && said.contains(home.path(CODEX).to_str().unwrap()), "{said}");
}

#[test]
fn entry_without_a_command_is_cut_out() {
    let home = with(&["opencode"]);
    let theirs =
        "\u{feff}{\n\t// theirs\n\t\"mcp\": {\n\t\t\"x\":  { \"command\": [ \"x\" ] }, // theirs\nENTRY\t\t\"y\":{},\n\t},\n}\n";
    let ours = format!("\t\t\"claude-peers\": {{\"type\": \"local\", \"command\": [\"{}\"]}},\n", server());
    fs::create_dir_all(home.path("home/dotfiles")).unwrap();
    fs::remove_file(home.path(OPENCODE)).unwrap();
    std::os::unix::fs::symlink(home.path("home/dotfiles/opencode"), home.path(OPENCODE)).unwrap();
    fs::write(home.path(OPENCODE), theirs.replace("ENTRY", &ours)).unwrap();
    let home = home.without("opencode");
    let (_, state, said) = step(&home, "opencode", &["--undo", "--agent", "opencode"]);
    assert_eq!(state, "undone", "{said}");
    assert_eq!(text(&home, OPENCODE), theirs.replace("ENTRY", ""));
    assert!(home.path(OPENCODE).is_symlink());
}

#[test]
fn agent_that_is_gone_leaves_its_entry_named() {
    let home = with(&["codex"]);
    assert_eq!(step(&home, "codex", &["--agent", "codex"]).1, "done");
    let home = home.without("codex");
    let (code, state, said) = step(&home, "codex", &["--undo", "--agent", "codex"]);
    assert_eq!((code, state.as_str()), (0, "skipped"), "{said}");
    assert!(said.contains("take claude-peers out of `mcp_servers` in "), "{said}");
}

#[test]
fn plugin_file_of_others_stays() {
    let home = with(&["opencode"]);
    let run = |undo: &[&str]| {
        let (code, steps) = setup(&home, "opencode", &[&["--agent", "opencode"], undo].concat());
        let (state, said) = steps.into_iter().find(|(_, said)| said.contains("plugin/claude-peers.js")).unwrap();
        (code, state, said)
    };
    assert_eq!(run(&[]).1, "done");
    let ours = text(&home, PLUGIN);
    assert!(ours.starts_with("// Written by `claude-peers setup`") && !ours.contains("@SERVER@"), "{ours}");

    // One of an earlier version is replaced.
    let line = ours.lines().next().unwrap();
    let earlier = format!("{}{}\nold\n", &line[..line.len() - 16], super::fingerprint("old\n"));
    write(&home, PLUGIN, &earlier);
    assert_eq!((run(&[]).1.as_str(), text(&home, PLUGIN)), ("done", ours.clone()));

    let (_folder, other) = other_copy();
    let named = format!("const server = {};\n", json!(other));
    let others = format!("{}{}\n{named}", &line[..line.len() - 16], super::fingerprint(&named));
    for (file, put, taken, words) in [
        ("export {}\n", "failed", "already", "was not written by setup"),
        (&*(ours.clone() + "more\n"), "failed", "failed", "was changed after setup wrote it"),
        (&others, "already", "already", "keep "),
    ] {
        write(&home, PLUGIN, file);
        for (undo, expected) in [(&[][..], put), (&["--undo"], taken)] {
            let (code, state, said) = run(undo);
            assert_eq!((code, state.as_str()), (i32::from(expected == "failed"), expected), "{said}");
            assert!(said.contains(words), "{said}");
            assert_eq!(text(&home, PLUGIN), file);
        }
    }
    write(&home, PLUGIN, &ours);
    assert_eq!(run(&["--undo"]).1, "undone");
    assert!(!home.path("home/.config/opencode/plugin").exists(), "the empty folder goes, too");
}

#[test]
fn another_program_of_the_same_name_is_left_alone() {
    let home = with(&["copilot", "pi"]);
    let (_, steps) = home.setup(&["--dry-run"]);
    assert!(!steps.contains_key("copilot") && !steps.contains_key("pi"), "{steps:?}");
    fs::create_dir_all(home.path("home/.pi/agent")).unwrap();
    let package = home.path("lib/node_modules/@github/copilot/copilot");
    fs::create_dir_all(package.parent().unwrap()).unwrap();
    fs::rename(home.path("bin/copilot"), &package).unwrap();
    std::os::unix::fs::symlink(&package, home.path("bin/copilot")).unwrap();
    let (_, steps) = home.setup(&["--dry-run"]);
    assert_eq!((steps["copilot"].0.as_str(), steps["pi"].0.as_str()), ("planned", "planned"), "{steps:?}");
}

#[test]
fn folders_of_agents_may_be_elsewhere() {
    let mut home = with(&["codex"]);
    let moved = home.path("moved");
    home.env.push(("CODEX_HOME", moved.to_str().unwrap().to_owned()));
    write(&home, "moved/config.toml", "[mcp_servers.claude-peers]\ncommand = \"/usr/bin/env\"\n");
    let (_, state, said) = step(&home, "codex", &["--agent", "codex"]);
    assert!(state == "failed" && said.contains(Path::new("moved/config.toml").to_str().unwrap()), "{state}: {said}");
}
