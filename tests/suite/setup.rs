//! `claude-peers setup` with real files in the test's own home and a real broker. Stand-ins replace the service manager and
//! Claude Code, which are not available everywhere, and change the files as the real ones do.

pub mod agents;
mod allow;
mod bytes;
mod hooks;
mod links;
mod places;
mod plugin;
mod policy;

use crate::support::{Broker, folder, unused_port};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A stand-in for `systemctl --user`: a unit is loaded if its file is in the home, enabled if its link exists, and active if
/// `$STATE` has a file for it. Starting the Unix socket links the real broker's folder to where the units expect it.
const SYSTEMCTL: &str = r#"#!/bin/sh
[ "$1" = --user ] || exit 9
verb=$2; shift 2
[ "$verb" = show ] || echo "systemctl $verb $*" >>"$CALLS"
units=$HOME/.config/systemd/user wants=$HOME/.config/systemd/user/sockets.target.wants
case "$verb $1" in
"show --property=Version,UnitPath") echo "Version=252"; echo "UnitPath=$units /usr/lib/systemd/user"; exit;;
show*) shift;;
esac
for unit; do
    case $verb in
    show)
        load=not-found active=inactive state=
        [ -e "$units/$unit" ] && load=loaded state=disabled
        [ -e "$wants/$unit" ] && state=enabled
        [ -e "$STATE/$unit" ] && active=active
        printf 'LoadState=%s\nId=%s\nActiveState=%s\nUnitFileState=%s\n' "$load" "$unit" "$active" "$state"
        [ "$unit" = claude-peers-tcp.socket ] &&
            echo "Listen=$(cat "$units/$unit" "$units/$unit.d/"* 2>/dev/null | sed -n 's/^ListenStream=\(.\)/\1/p' | tail -n 1) (Stream)"
        echo;;
    enable) mkdir -p "$wants" && ln -s "$units/$unit" "$wants/$unit";;
    disable) rm -f "$wants/$unit"; rmdir "$wants" 2>/dev/null;;
    start|restart)
        [ -e "$units/$unit" ] || { echo "Failed to start $unit: Unit $unit not found." >&2; exit 5; }
        : >"$STATE/$unit"
        [ "$unit" = claude-peers.socket ] && ln -s "$SERVED" "$XDG_RUNTIME_DIR/claude-peers" && : >"$STATE/claude-peers.service";;
    stop) rm -f "$STATE/$unit"; [ "$unit" = claude-peers.socket ] && rm -f "$XDG_RUNTIME_DIR/claude-peers";;
    esac
done
exit 0
"#;

/// A stand-in for `claude` that edits a `.claude.json` with its servers on one line.
const CLAUDE: &str = r#"#!/bin/sh
file=${CLAUDE_CONFIG_DIR:-$HOME}/.claude.json
[ "$1" = --version ] && { echo "${CLAUDE_VERSION:-2.1.330} (Claude Code)"; exit; }
echo "claude $*" >>"$CALLS"
[ -z "$CLAUDE_SAYS" ] || { echo "$CLAUDE_SAYS" >&2; exit 1; }
case "$1 $2" in
"mcp add")
    [ -e "$file" ] || echo '{"mcpServers": {}}' >"$file"
    ! grep -q '"mcpServers": {.*"claude-peers"' "$file" || { echo "MCP server claude-peers already exists" >&2; exit 1; }
    SERVER=$9 perl -pi -e 's|"mcpServers": \{|$&"claude-peers": {"command": "$ENV{SERVER}", "args": [], "env": {}}|' "$file";;
"mcp remove") perl -pi -e 's|"claude-peers": \{.*?\}\}||' "$file";;
*) exit 9;;
esac
"#;

/// A user's home with the stand-ins.
struct Home {
    place: tempfile::TempDir,
    broker: Broker,
    env: Vec<(&'static str, String)>,
}

impl Home {
    /// A home with systemd and Claude Code.
    fn new() -> Self {
        let home = Self { place: folder(), broker: Broker::start(), env: Vec::new() };
        for folder in ["home/.config", "bin", "run/systemd", "state"] {
            fs::create_dir_all(home.path(folder)).unwrap();
        }
        fs::write(home.path("run/systemd/private"), "").unwrap();
        home.program("systemctl", SYSTEMCTL);
        home.program("claude", CLAUDE);
        home.settings(r#"{"numStartups": 7, "mcpServers": {}}"#);
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Removes a stand-in.
    fn without(self, program: &str) -> Self {
        fs::remove_file(self.path("bin").join(program)).unwrap();
        self
    }

    /// Writes `.claude.json`.
    fn settings(&self, text: &str) {
        fs::write(self.path("home/.claude.json"), text).unwrap();
    }

    /// Registers `command` as Claude Code would.
    fn registered(&self, command: &str, env: &Value) {
        self.settings(&format!(r#"{{"mcpServers": {{"claude-peers": {{"command": "{command}", "args": [], "env": {env}}}}}}}"#));
    }

    /// The path of the user's Claude Code settings.
    fn user_settings(&self) -> PathBuf {
        self.path("home/.claude/settings.json")
    }

    fn write_user_settings(&self, text: &str) {
        fs::create_dir_all(self.path("home/.claude")).unwrap();
        fs::write(self.user_settings(), text).unwrap();
    }

    /// The command that is registered under our name.
    fn registration(&self) -> Value {
        let text = fs::read_to_string(self.path("home/.claude.json")).unwrap();
        let settings: Value = serde_json::from_str(&text).unwrap();
        settings["mcpServers"]["claude-peers"]["command"].clone()
    }

    fn unit(&self, name: &str) -> PathBuf {
        self.path("home/.config/systemd/user").join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claude-peers"));
        command.env_clear().env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        command.env("HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.path("run")).env("TMPDIR", self.place.path());
        command.env("CALLS", self.path("calls")).env("STATE", self.path("state"));
        command.env("SERVED", self.broker.folder().join("run")).envs(self.env.iter().cloned());
        command.arg("setup").args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs setup with `--json`. Returns its exit code and every step with its state and text.
    fn setup(&self, arguments: &[&str]) -> (i32, Steps) {
        Self::run(self.command(arguments))
    }

    fn run(mut command: Command) -> (i32, Steps) {
        let Output { status, stdout, stderr } = command.arg("--json").output().unwrap();
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        let answer: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout:?} {stderr:?}"));
        assert_eq!(answer["ok"], json!(status.success()), "{answer}");
        let text = |step: &Value, key: &str| step[key].as_str().unwrap_or_default().to_owned();
        let all = |step: &Value| (text(step, "state"), text(step, "what") + "; " + &text(step, "help"));
        let steps = answer["steps"].as_array().unwrap().iter().map(|step| (text(step, "step"), all(step))).collect();
        (status.code().unwrap(), steps)
    }

    /// The output of setup without `--json`.
    fn said(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.command(arguments).output().unwrap().stdout).unwrap()
    }

    /// All calls of the stand-ins so far.
    fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.path("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Every file, folder and link of the home with its mode and content.
    fn tree(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut tree = BTreeMap::new();
        let mut folders = vec![self.path("home")];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                let meta = fs::symlink_metadata(&path).unwrap();
                let content = if meta.is_dir() {
                    folders.push(path.clone());
                    Vec::new()
                } else if meta.is_symlink() {
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
                } else {
                    fs::read(&path).unwrap()
                };
                tree.insert(path, (meta.permissions().mode(), content));
            }
        }
        tree
    }
}

/// The steps of a setup with their states and texts.
type Steps = BTreeMap<String, (String, String)>;

/// The states of the steps, ordered by name.
fn states(steps: &Steps) -> Vec<(&str, &str)> {
    steps.iter().map(|(step, (state, _))| (step.as_str(), state.as_str())).collect()
}

/// The MCP server under test.
fn server() -> &'static str {
    env!("CARGO_BIN_EXE_claude-peers-mcp")
}

/// A free port that no other test gets.
#[test]
fn setup_is_idempotent_and_undo_restores_home() {
    let home = Home::new();
    fs::write(home.path("home/.config/other"), "not ours").unwrap();
    let (before, port) = (home.tree(), unused_port().to_string());

    let (code, steps) = home.setup(&["--port", &port]);
    let done = ["allow_rule", "hooks", "registration", "round_trip", "sockets", "tcp_port", "units"].map(|step| (step, "done"));
    assert_eq!((code, states(&steps)), (0, done.to_vec()), "{steps:?}");
    let bin = Path::new(server()).parent().unwrap();
    let service = fs::read_to_string(home.unit("claude-peers.service")).unwrap();
    assert!(service.contains(&format!("\nExecStart={}/claude-peersd\n", bin.display())), "{service}");
    assert!(!service.contains("/usr/bin/"), "{service}");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(home.unit("claude-peers.service")), mode(home.unit(""))), (0o644, 0o755));
    let activation = home.path("home/.local/share/dbus-1/services/dev.claudepeers.Broker1.service");
    assert!(fs::read_to_string(activation).unwrap().contains("SystemdService=claude-peers.service"));
    let drop_in = fs::read_to_string(home.unit("claude-peers-tcp.socket.d/port.conf")).unwrap();
    assert!(drop_in.contains(&format!("\nListenStream=\nListenStream=127.0.0.1:{port}\n")), "{drop_in}");
    assert_eq!(home.registration(), server());
    // The test message went through the broker behind the installed socket, and no peer stays listed.
    assert_eq!(home.broker.count("SELECT count(*) FROM message WHERE state = 2"), 1);
    assert_eq!(home.broker.cli_json(&["peers"]).1["peers"], json!([]));

    let (installed, calls) = (home.tree(), home.calls());
    let (code, steps) = home.setup(&["--port", &port]);
    let mut already = done.map(|(step, _)| (step, "already"));
    already[3].1 = "done";
    assert_eq!((code, states(&steps)), (0, already.to_vec()), "{steps:?}");
    assert_eq!((home.tree() == installed, home.calls()), (true, calls));
    // The second run used the same two peers.
    assert_eq!(home.broker.stored(), (2, 2));

    let (code, steps) = home.setup(&["--undo"]);
    assert_eq!(
        (code, states(&steps)),
        (0, ["allow_rule", "hooks", "registration", "sockets", "units"].map(|step| (step, "undone")).to_vec()),
        "{steps:?}"
    );
    assert_eq!(home.tree(), before);
    let (code, steps) = home.setup(&["--undo"]);
    assert_eq!(
        (code, states(&steps)),
        (0, ["allow_rule", "hooks", "registration", "sockets", "units"].map(|step| (step, "already")).to_vec()),
        "{steps:?}"
    );
}

#[test]
fn dry_run_lists_everything_and_changes_nothing() {
    let home = Home::new();
    let before = home.tree();
    let (code, steps) = home.setup(&["--dry-run", "--port", &unused_port().to_string()]);
    let planned =
        ["allow_rule", "hooks", "registration", "round_trip", "sockets", "tcp_port", "units"].map(|step| (step, "planned"));
    assert_eq!((code, states(&steps)), (0, planned.to_vec()), "{steps:?}");
    assert_eq!((home.tree(), home.calls()), (before, Vec::new()));
    assert_eq!(home.broker.stored(), (0, 0));
    assert!(steps["registration"].1.contains(server()), "{steps:?}");

    assert_eq!(home.setup(&[]).0, 0);
    let (installed, calls) = (home.tree(), home.calls());
    let (code, steps) = home.setup(&["--undo", "--dry-run"]);
    assert_eq!(
        (code, states(&steps)),
        (0, ["allow_rule", "hooks", "registration", "sockets", "units"].map(|step| (step, "planned")).to_vec()),
        "{steps:?}"
    );
    assert_eq!((home.tree() == installed, home.calls()), (true, calls));
}

#[test]
fn broken_client_file_is_reported_and_kept() {
    for (text, place) in [
        ("{\n  \"mcpServers\": {},\n  oops\n}", "line 3, column 3"),
        (r#"{"mcpServers": ["claude-peers"]}"#, "line 1, column 15"),
        ("", "line 1, column 0"),
    ] {
        let home = Home::new();
        home.settings(text);
        for arguments in [&[][..], &["--register-only"], &["--undo"]] {
            let (code, steps) = home.setup(arguments);
            let (state, said) = &steps["registration"];
            assert_eq!((code, state.as_str()), (1, "failed"), "{arguments:?}: {steps:?}");
            let file = home.path("home/.claude.json");
            assert!(said.contains(&format!("{}, {place}: ", file.display())) && said.contains("correct it"), "{said}");
            assert_eq!(fs::read_to_string(file).unwrap(), text);
        }
        assert!(!home.calls().iter().any(|call| call.starts_with("claude")), "{:?}", home.calls());
    }
}

#[test]
fn failures_are_listed_at_the_end() {
    let mut home = Home::new();
    home.env.push(("CLAUDE_SAYS", "the disk is full".to_owned()));
    let Output { status, stdout, stderr } = home.command(&[]).output().unwrap();
    let out = String::from_utf8(stdout).unwrap();
    let (steps, end) = out.split_once("\nNot done:\n").unwrap_or_else(|| panic!("{out}"));
    assert_eq!((status.code(), stderr.len()), (Some(1), 0), "{out}");
    let failed = steps.lines().filter(|line| line.contains("FAILED")).count();
    assert_eq!((failed, steps.contains("round trip    test message delivered in ")), (1, true), "{out}");
    for words in ["registration  register", "`claude mcp add --scope user", "the disk is full", "run this again"] {
        assert!(end.contains(words), "{words}: {end}");
    }
}

#[test]
fn foreign_or_edited_unit_is_kept() {
    let home = Home::new();
    fs::create_dir_all(home.unit("")).unwrap();
    fs::write(home.unit("claude-peers.service"), "[Service]\nExecStart=/opt/mine\n").unwrap();
    let (code, steps) = home.setup(&[]);
    assert_eq!((code, steps["round_trip"].0.as_str()), (1, "done"), "{steps:?}");
    assert_eq!(fs::read_to_string(home.unit("claude-peers.service")).unwrap(), "[Service]\nExecStart=/opt/mine\n");

    fs::remove_file(home.unit("claude-peers.service")).unwrap();
    assert_eq!(home.setup(&[]).0, 0);
    let changed = fs::read_to_string(home.unit("claude-peers.service")).unwrap().replace("WatchdogSec=60", "WatchdogSec=9");
    fs::write(home.unit("claude-peers.service"), &changed).unwrap();
    for arguments in [&[][..], &["--undo"]] {
        let Output { status, stdout, .. } = home.command(arguments).output().unwrap();
        let out = String::from_utf8(stdout).unwrap();
        assert!(!status.success() && out.contains("claude-peers.service was changed after setup wrote it"), "{out}");
        assert_eq!(fs::read_to_string(home.unit("claude-peers.service")).unwrap(), changed);
    }
}

#[test]
fn unit_of_an_earlier_version_is_updated() {
    let home = Home::new();
    assert_eq!(home.setup(&[]).0, 0);
    let now = fs::read_to_string(home.unit("claude-peers.socket")).unwrap();
    // A unit as an earlier version would have written it: with the mark and another text.
    let earlier =
        "# Written by `claude-peers setup`, removed by `claude-peers setup --undo`; fingerprint 3db3a38a2a3e1f0b\n[Unit]\n";
    let earlier = earlier.replace("3db3a38a2a3e1f0b", &fingerprint("[Unit]\n"));
    fs::write(home.unit("claude-peers.socket"), earlier).unwrap();
    let (code, steps) = home.setup(&[]);
    assert_eq!((code, steps["units"].0.as_str(), steps["broker"].0.as_str()), (0, "done", "done"), "{steps:?}");
    assert_eq!(fs::read_to_string(home.unit("claude-peers.socket")).unwrap(), now);
    assert_eq!(home.calls().last().unwrap(), "systemctl try-restart claude-peers.service");
}

/// The fingerprint in the mark, computed by another program.
fn fingerprint(text: &str) -> String {
    let sum = Command::new("sh").args(["-c", "printf %s \"$1\" | sha256sum", "sh", text]).output().unwrap();
    String::from_utf8(sum.stdout).unwrap()[..16].to_owned()
}

#[test]
fn setup_works_without_a_service_manager() {
    let home = Home::new();
    fs::remove_file(home.path("run/systemd/private")).unwrap();
    let before = home.tree();
    let (code, steps) = home.setup(&[]);
    // If systemd runs the machine but not this user's service manager, that is a fault to fix.
    if Path::new("/run/systemd/system").is_dir() {
        assert_eq!((code, steps["service"].0.as_str(), steps.get("round_trip")), (1, "failed", None), "{steps:?}");
    } else {
        assert_eq!((code, steps["service"].0.as_str(), steps["round_trip"].0.as_str()), (0, "done", "done"), "{steps:?}");
        assert!(steps["service"].1.contains("in the background (pid "), "{steps:?}");
        assert!(home.path("run/claude-peers/broker.sock").exists());
    }
    assert_eq!(home.registration(), server());
    let (_, steps) = home.setup(&["--undo"]);
    assert_eq!(steps["registration"].0, "undone", "{steps:?}");
    assert!(!home.path("run/claude-peers/broker.sock").exists(), "the broker has stopped");
    let mut after = home.tree();
    after.retain(|path, _| before.contains_key(path) || !is_of_broker(path));
    assert_eq!(after, before);
}

/// What a broker keeps: the database, and the folder of its socket with its log.
fn is_of_broker(path: &Path) -> bool {
    path.to_string_lossy().contains(".claude-peers.db") || path.iter().any(|part| part == "claude-peers")
}

#[test]
fn setup_fails_without_a_broker() {
    if Path::new("/run/systemd/system").is_dir() {
        return eprintln!("SKIPPED: systemd runs this machine");
    }
    let home = Home::new();
    fs::remove_file(home.path("run/systemd/private")).unwrap();
    fs::write(home.path("home/.claude-peers.db"), "this is no database, and long enough to be seen as something else").unwrap();
    let (code, steps) = home.setup(&[]);
    assert_eq!((code, steps["service"].0.as_str()), (1, "failed"), "{steps:?}");
    assert!(!home.said(&[]).contains("at once"));
}

#[test]
fn setup_without_claude_code_says_the_next_step() {
    let home = Home::new().without("claude");
    if ["/usr/local/bin", "/opt/homebrew/bin", "/usr/bin", "/bin"].iter().any(|place| Path::new(place).join("claude").exists()) {
        return eprintln!("SKIPPED: Claude Code is installed for the whole machine");
    }
    let (code, steps) = home.setup(&[]);
    assert_eq!((code, steps["registration"].0.as_str()), (0, "skipped"), "{steps:?}");
    let by_hand = format!("claude mcp add --scope user --transport stdio claude-peers -- {}", server());
    assert!(steps["registration"].1.contains(&by_hand), "{steps:?}");
    let said = home.said(&[]);
    assert!(!said.contains("at once") && !said.contains("Start sessions"), "{said}");
    let Output { status, stdout, stderr } = home.command(&["--register-only"]).output().unwrap();
    assert_eq!((status.code(), stdout.len(), stderr.len()), (Some(0), 0, 0));
}

#[test]
fn claude_is_found_outside_the_path() {
    let home = Home::new();
    let node = home.path("home/.nvm/versions/node/v22.1.0/bin");
    fs::create_dir_all(&node).unwrap();
    // As npm installs it: a script that runs the program beside it.
    fs::rename(home.path("bin/claude"), node.join("real")).unwrap();
    home.program("claude", "#!/usr/bin/env node\n");
    fs::rename(home.path("bin/claude"), node.join("claude")).unwrap();
    home.program("node", "#!/bin/sh\nshift\nexec \"$(dirname \"$0\")/real\" \"$@\"\n");
    fs::rename(home.path("bin/node"), node.join("node")).unwrap();
    let (code, steps) = home.setup(&["--register-only"]);
    assert_eq!((code, states(&steps)), (0, vec![("registration", "done")]), "{steps:?}");
    assert_eq!(home.registration(), server());
}

#[test]
fn config_directory_of_claude_code_is_used() {
    let mut home = Home::new();
    let moved = home.path("moved");
    fs::create_dir(&moved).unwrap();
    home.env.push(("CLAUDE_CONFIG_DIR", moved.to_str().unwrap().to_owned()));
    let before = home.tree();
    assert_eq!(home.setup(&["--register-only"]).1["registration"].0, "done");
    assert!(fs::read_to_string(moved.join(".claude.json")).unwrap().contains(server()));
    assert_eq!(home.setup(&["--register-only"]).1["registration"].0, "already");
    assert_eq!(home.tree(), before);
}

#[test]
fn only_our_own_registration_is_replaced() {
    let home = Home::new();
    let other = home.path("other-mcp").to_str().unwrap().to_owned();
    fs::write(&other, "").unwrap();
    let gone = "/nowhere/claude-peers-mcp";
    let no_env = json!({});

    // The package's unit keeps a registration that works or that it cannot judge.
    for works in [&other, "bun"] {
        home.registered(works, &no_env);
        let (code, steps) = home.setup(&["--register-only"]);
        assert_eq!((code, steps["registration"].0.as_str(), home.registration()), (0, "already", json!(works)), "{steps:?}");
    }
    // It replaces one that cannot work. A user's setup replaces any other, unless settings would be lost.
    for (arguments, entry) in [(&["--register-only"][..], gone), (&[][..], other.as_str())] {
        home.registered(entry, &no_env);
        let (code, steps) = home.setup(arguments);
        assert_eq!((code, home.registration()), (0, json!(server())), "{steps:?}");
        assert!(steps["registration"].1.contains(&format!("in place of {entry}")), "{steps:?}");
    }
    home.registered(&other, &json!({"OPENAI_API_KEY": "sk-secret"}));
    let (code, steps) = home.setup(&[]);
    assert_eq!((code, steps["registration"].0.as_str(), home.registration()), (1, "failed", json!(other)), "{steps:?}");
    assert!(steps["registration"].1.contains("OPENAI_API_KEY") && !steps["registration"].1.contains("sk-secret"), "{steps:?}");

    // Undo removes another copy's registration only if its program is gone.
    for (entry, left) in [(other.as_str(), json!(other)), (gone, Value::Null)] {
        home.registered(entry, &no_env);
        let (code, steps) = home.setup(&["--undo", "--register-only"]);
        assert_eq!((code, home.registration()), (0, left), "{steps:?}");
    }
}

#[test]
fn old_claude_code_is_registered_and_reported() {
    let mut home = Home::new();
    home.env.push(("CLAUDE_VERSION", "2.1.79".to_owned()));
    let (code, steps) = home.setup(&["--register-only"]);
    assert_eq!((code, steps["registration"].0.as_str()), (0, "done"), "{steps:?}");
    assert!(steps["registration"].1.contains("2.1.79 is older than 2.1.80"), "{steps:?}");
}

#[test]
fn taken_port_is_no_failure_of_setup() {
    let home = Home::new();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let (code, steps) = home.setup(&["--port", &port.to_string()]);
    assert_eq!((code, steps["tcp_port"].0.as_str()), (0, "skipped"), "{steps:?}");
    assert!(steps["tcp_port"].1.contains(&format!("port {port} is in use")), "{steps:?}");

    let other = unused_port();
    let (code, steps) = home.setup(&["--port", &other.to_string()]);
    assert_eq!((code, steps["tcp_port"].0.as_str()), (0, "done"), "{steps:?}");
    // A running service would prevent its socket from being opened.
    assert_eq!(
        home.calls()[home.calls().len() - 2..],
        ["systemctl stop claude-peers.service", "systemctl start claude-peers-tcp.socket"]
    );
    let another = unused_port();
    assert_eq!(home.setup(&["--port", &another.to_string()]).1["tcp_port"].0, "done");
    assert_eq!(home.calls().last().unwrap(), "systemctl restart claude-peers-tcp.socket");
    let service = fs::read_to_string(home.unit("claude-peers.service.d/port.conf")).unwrap();
    assert!(service.contains(&format!("\nEnvironment=CLAUDE_PEERS_PORT={another}\n")), "{service}");
    // Without the option the port stays; the default port removes the files.
    let (code, steps) = home.setup(&[]);
    assert_eq!(
        (code, steps["units"].0.as_str(), home.unit("claude-peers.service.d").exists()),
        (0, "already", true),
        "{steps:?}"
    );
    assert_eq!(home.setup(&["--port", "7899"]).0, 0);
    assert!(!home.unit("claude-peers.service.d").exists() && !home.unit("claude-peers-tcp.socket.d").exists());
}

#[test]
fn wrong_arguments_change_nothing() {
    let mut home = Home::new();
    let before = home.tree();
    for arguments in [&["--port", "0"][..], &["--port", "65536"], &["--port", "x"], &["--undo", "--port", "7900"], &["now"]] {
        let Output { status, stdout, .. } = home.command(arguments).arg("--json").output().unwrap();
        assert_eq!(status.code(), Some(2), "{arguments:?}");
        assert_eq!(serde_json::from_slice::<Value>(&stdout).unwrap()["error"]["code"], "usage");
    }
    home.env.push(("CLAUDE_PEERS_CLAUDE", "claude".to_owned()));
    let (code, steps) = home.setup(&["--register-only"]);
    assert_eq!(code, 1);
    assert!(steps["registration"].1.contains("CLAUDE_PEERS_CLAUDE=\"claude\" cannot be used"), "{steps:?}");
    assert_eq!((home.tree(), home.calls()), (before, Vec::new()));
}

#[test]
fn setup_refuses_root_by_default() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can be root by accident");
    }
    let mut home = Home::new();
    let before = home.tree();
    home.env.push(("SUDO_USER", "ada".to_owned()));
    let Output { status, stderr, .. } = home.command(&[]).output().unwrap();
    let error = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(error.contains("for root, not for ada") && error.contains("without sudo"), "{error}");
    assert_eq!((home.tree(), home.calls()), (before, Vec::new()));
}
