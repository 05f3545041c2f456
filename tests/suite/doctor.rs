//! `claude-peers doctor`: every trouble is made for real, found, and named with what mends it. Those that need a service manager
//! are made on a booted host.

use crate::support::{Broker, Session, broker::signal, events::Peer, eventually, folder, other::as_another_user};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The uid and gid of `nobody`.
const NOBODY: u32 = 65534;
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the doctor said, and its exit code.
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

    /// The findings of a check, in words.
    fn findings(&self, check: &str) -> Vec<String> {
        let found = self.checks.iter().filter(|finding| finding["check"] == check);
        found.map(|finding| format!("{}: {}", finding["state"].as_str().unwrap(), finding["what"].as_str().unwrap())).collect()
    }

    /// Asserts that a check has a finding of this state with these words, and a remedy with those.
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

/// A stand-in for Claude Code in `home` that says this version, and registers servers as it does.
fn claude(home: &Path, version: &str) -> PathBuf {
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

/// Registers servers with Claude Code, as it writes them.
fn register(home: &Path, servers: Value) {
    fs::write(home.join(".claude.json"), json!({"numStartups": 1, "mcpServers": servers}).to_string()).unwrap();
}

/// The doctor in the broker's surroundings, where no service manager is to be found; Claude Code is as it should be.
fn doctor(broker: &Broker, arguments: &[&str]) -> Command {
    let mut command = broker.cli(&[&["doctor"], arguments].concat());
    command.env("XDG_RUNTIME_DIR", broker.folder()).env("CLAUDE_PEERS_CLAUDE", broker.folder().join("claude-stand-in"));
    command
}

/// What it says there.
fn visit(broker: &Broker, arguments: &[&str]) -> Visit {
    Visit::of(doctor(broker, arguments))
}

/// Claude Code in the broker's folder, with the server under test registered.
fn with_claude(broker: &Broker) {
    claude(broker.folder(), "2.1.330");
    register(broker.folder(), json!({"claude-peers": {"type": "stdio", "command": env!("CARGO_BIN_EXE_claude-peers-mcp")}}));
}

#[test]
fn a_sound_installation_is_told_so_with_the_route_of_every_session() {
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
    visited.says(
        "session",
        "warning",
        &["pull: asked for by CLAUDE_PEERS_DELIVERY", "only when it calls"],
        "server:claude-peers",
    );
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
fn without_a_broker_it_says_so_and_checks_the_rest() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    let visited = visit(&broker, &[]);
    visited.says("unix-socket", "failed", &["no broker runs", broker.socket().to_str().unwrap()], "claude-peersd");
    visited.says("database", "ok", &["not there yet"], "");
    visited.says("registration", "ok", &[], "");
    visited.says("session", "skipped", &[], "");
    let text = String::from_utf8(doctor(&broker, &[]).output().unwrap().stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with("FAILED   unix-socket")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("           ") && line.contains("claude-peersd")), "{text}");
    assert!(text.trim_end().lines().last().unwrap().contains("1 failed"), "{text}");
}

// The sockets.

#[test]
fn a_stale_unix_socket_is_found_and_removed_and_a_living_one_never() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    fs::DirBuilder::new().mode(0o700).create(broker.socket().parent().unwrap()).unwrap();
    drop(UnixListener::bind(broker.socket()).unwrap());
    let visited = visit(&broker, &[]);
    visited.says(
        "unix-socket",
        "failed",
        &["stale", broker.socket().to_str().unwrap()],
        &format!("rm {}", broker.socket().display()),
    );
    assert!(broker.socket().exists(), "without --fix nothing changes");
    let visited = visit(&broker, &["--fix"]);
    let finding = visited.says("unix-socket", "failed", &["no broker runs"], "");
    assert_eq!(finding["fixed"], false, "there is still no broker");
    assert!(!broker.socket().exists());

    fs::write(broker.socket(), "precious").unwrap();
    visit(&broker, &["--fix"]).says("unix-socket", "failed", &["is no socket"], "mv ");
    assert_eq!(fs::read_to_string(broker.socket()).unwrap(), "precious");
    fs::remove_file(broker.socket()).unwrap();

    // Somebody listens who is no broker: their socket stays.
    let stranger = UnixListener::bind(broker.socket()).unwrap();
    let answering = std::thread::spawn(move || drop((stranger.accept().unwrap(), stranger.accept().unwrap())));
    visit(&broker, &["--fix"]).says("unix-socket", "failed", &["cannot be reached"], "start it again");
    assert!(broker.socket().exists());
    answering.join().unwrap();
}

#[test]
fn a_broker_that_hangs_is_told_apart_from_none() {
    let broker = Broker::start();
    with_claude(&broker);
    signal(broker.pid(), "STOP");
    let visited = visit(&broker, &[]);
    signal(broker.pid(), "CONT");
    visited.says("unix-socket", "failed", &["no answer within"], "hangs");
}

#[test]
fn a_port_in_the_hands_of_another_program_is_told_with_its_holder() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let broker = Broker::with(&[("CLAUDE_PEERS_PORT", &port.to_string())]);
    with_claude(&broker);
    let (pid, program) = (std::process::id(), std::env::current_exe().unwrap());
    let words = [&format!("port {port} is held by another program of yours (process {pid}: "), program.to_str().unwrap()];
    let visited = visit(&broker, &[]);
    visited.says("tcp-socket", "failed", &words, &format!("claude-peers setup --port {}", port.wrapping_add(1).max(1)));
    visited.says("unix-socket", "ok", &[], "");
    drop(holder);
    visit(&broker, &[]).says("tcp-socket", "failed", &[&format!("nothing listens on port {port} now")], "claude-peers stop");
}

#[test]
fn a_port_in_the_hands_of_another_users_broker_is_told_with_their_name() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can start a broker as another user");
    }
    let theirs = Broker::start();
    let ours = Broker::prepared(&[("CLAUDE_PEERS_PORT", &theirs.port.to_string())]);
    with_claude(&ours);
    chown(ours.folder(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut child = as_nobody(&ours, "claude-peersd", &[]).stderr(Stdio::null()).spawn().unwrap();
    eventually("the broker listens", || UnixStream::connect(ours.socket()).ok());
    let visited = Visit::of(as_nobody(&ours, "claude-peers", &["doctor"]));
    child.kill().unwrap();
    child.wait().unwrap();
    let words = [&format!("port {} is held by the claude-peers broker of user root", theirs.port), "all others can"];
    visited.says("tcp-socket", "failed", &words, "claude-peers setup --port");
    visited.says("unix-socket", "ok", &[ours.socket().to_str().unwrap()], "");
}

/// One of our programs, run by `nobody` in the broker's surroundings.
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

#[test]
fn a_socket_and_a_database_that_others_may_open_are_closed_again() {
    let broker = Broker::start();
    with_claude(&broker);
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    set(broker.socket().parent().unwrap(), 0o755);
    set(&broker.socket(), 0o666);
    set(&broker.database(), 0o644);
    let visited = visit(&broker, &[]);
    visited.says("unix-socket", "warning", &["open to others (mode 0666)"], "chmod 0600");
    visited.says("database", "warning", &["read by others (mode 0644)"], "chmod 0600");
    let visited = visit(&broker, &["--fix"]);
    for check in ["unix-socket", "database"] {
        assert_eq!(visited.says(check, "ok", &[], "")["fixed"], true);
    }
    assert_eq!((mode(&broker.socket()), mode(&broker.database())), (0o600, 0o600));
}

// The database.

fn check_database(broker: &Broker) -> (i32, Value) {
    let output = broker.command().arg("--check-database").stdout(Stdio::piped()).output().unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[test]
fn the_broker_looks_at_a_database_and_leaves_it_as_it_is() {
    let mut broker = Broker::prepared(&[]);
    let (code, report) = check_database(&broker);
    assert_eq!((code, &report["state"]), (0, &json!("missing")));
    broker.launch();
    let peer = Peer::register(&broker.http(), "peer", json!({}));
    broker.http().post("/v1/send", &json!({"to": peer.id, "text": "hello"}));
    let (code, report) = check_database(&broker);
    assert_eq!(
        (code, &report["state"], &report["schema"], &report["mode"]),
        (0, &json!("ok"), &json!(1), &json!("0600")),
        "beside it"
    );
    assert!(report["newestMessageAt"].is_string(), "what only stands in the log is read too: {report}");
    assert!(broker.terminate().success());

    let files = || {
        let names = fs::read_dir(broker.folder()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            names.filter(|path| path.is_file() && !path.ends_with("log")).map(|path| (fs::read(&path).unwrap(), path)).collect();
        files.sort();
        files
    };
    let before = files();
    assert_eq!(check_database(&broker).1["state"], "ok");
    assert_eq!(files(), before, "nothing changed, nothing was left beside it");
    let database = Connection::open(broker.database()).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    let (code, report) = check_database(&broker);
    assert_eq!(
        (code, &report["state"], &report["schema"], &report["knownSchema"]),
        (4, &json!("too_new"), &json!(99), &json!(1))
    );
    fs::write(broker.database(), "to be or not to be\n".repeat(1_000)).unwrap();
    let (code, report) = check_database(&broker);
    assert_eq!((code, &report["state"]), (1, &json!("damaged")));
    fs::remove_file(broker.database()).unwrap();
    fs::create_dir(broker.database()).unwrap();
    let (code, report) = check_database(&broker);
    assert_eq!((code, &report["state"]), (1, &json!("unreadable")));
    let unusable = broker.command().arg("--check-database").env("CLAUDE_PEERS_EXPIRY", "soon").status().unwrap();
    assert_eq!(unusable.code(), Some(2));
}

#[test]
fn a_damaged_database_is_told_before_and_after_it_was_set_aside() {
    let mut broker = Broker::start();
    with_claude(&broker);
    let peer = Peer::register(&broker.http(), "peer", json!({}));
    for number in 0..20 {
        broker.http().post("/v1/send", &json!({"to": peer.id, "text": format!("{number} {}", "x".repeat(5_000))}));
    }
    assert!(broker.terminate().success());
    let mut bytes = fs::read(broker.database()).unwrap();
    let middle = bytes.len() / 4096 / 2 * 4096;
    bytes[middle..middle + 8 * 4096].fill(0xa5);
    fs::write(broker.database(), &bytes).unwrap();
    let visited = visit(&broker, &["--fix"]);
    visited.says("database", "failed", &["is damaged", broker.database().to_str().unwrap()], "claude-peers stop");
    assert!(fs::read(broker.database()).unwrap() == bytes, "a doctor does not operate on it");

    broker.launch();
    let visited = visit(&broker, &[]);
    visited.says("database", "ok", &["sound"], "");
    visited.says("database", "warning", &["was damaged", "set aside as", "recovered rows"], "keep the file");
    broker.restart();
    visit(&broker, &[]).says("database", "warning", &["set aside earlier", "peers.db.damaged-"], "keep it");
}

#[test]
fn a_database_of_a_newer_version_is_named() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    let database = Connection::open(broker.database()).unwrap();
    database.execute_batch("CREATE TABLE future (x); PRAGMA user_version = 99").unwrap();
    drop(database);
    assert_eq!(broker.refused(), 4);
    visit(&broker, &[]).says(
        "database",
        "failed",
        &["newer version", "schema is 99", broker.database().to_str().unwrap()],
        "upgrade claude-peers",
    );
}

#[test]
fn a_database_that_may_not_be_written_is_named() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can become a user who may not write everywhere");
    }
    let mut broker = Broker::start();
    with_claude(&broker);
    assert!(broker.terminate().success());
    chown(broker.folder(), Some(NOBODY), Some(NOBODY)).unwrap();
    for (owner, mode, folder_mode, words) in [
        (NOBODY, 0o400, 0o755, "peers.db cannot be written"),
        (NOBODY, 0o600, 0o555, "cannot be written"),
        (0, 0o644, 0o755, "peers.db cannot be written"),
    ] {
        chown(broker.database(), Some(owner), Some(owner)).unwrap();
        fs::set_permissions(broker.database(), Permissions::from_mode(mode)).unwrap();
        let mut command = as_nobody(&broker, "claude-peers", &["doctor"]);
        fs::set_permissions(broker.folder(), Permissions::from_mode(folder_mode)).unwrap();
        let visited = Visit::of({
            command.env("CLAUDE_PEERS_PORT", "0");
            command
        });
        visited.says("database", "failed", &["cannot be written by you", words], "CLAUDE_PEERS_DB");
        fs::set_permissions(broker.folder(), Permissions::from_mode(0o755)).unwrap();
    }
    chown(broker.database(), Some(0), Some(0)).unwrap();
    fs::set_permissions(broker.database(), Permissions::from_mode(0o600)).unwrap();
    let visited = Visit::of(as_nobody(&broker, "claude-peers", &["doctor"]));
    visited.says("database", "failed", &["cannot be read"], "CLAUDE_PEERS_DB");
}

// Versions.

/// A copy of a program that is of an older version: the same program, with another number in it.
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
fn an_old_broker_or_server_beside_a_new_command_line_is_told_with_every_place() {
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
        &["other copies lie on PATH", old, daemon.to_str().unwrap()],
        "remove the copies",
    );

    // The command that starts it, with the older program in place of the one under test.
    let prepared = broker.command();
    let mut command = Command::new(&daemon);
    command.env_clear().envs(prepared.get_envs().filter_map(|(name, value)| Some((name, value?))));
    broker.launch_as(command);
    let visited = visit(&broker, &[]);
    let words = ["different versions work together", &format!("running broker {old} ({})", daemon.display()), VERSION];
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

// Claude Code.

#[test]
fn claude_code_that_is_missing_or_too_old_or_broken_is_named() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    let stand_in = broker.folder().join("claude-stand-in");
    for (version, state, words) in [
        ("2.1.79", "failed", "Claude Code 2.1.79"),
        ("1.0.128", "failed", "too old: channels need 2.1.80"),
        ("2.1.80", "ok", "Claude Code 2.1.80"),
        ("3.0.0", "ok", "Claude Code 3.0.0"),
        ("what", "failed", "no version"),
    ] {
        claude(broker.folder(), version);
        visit(&broker, &[]).says("claude", state, &[words, stand_in.to_str().unwrap()], "");
    }
    let mut command = doctor(&broker, &[]);
    command.env("CLAUDE_PEERS_CLAUDE", "/nowhere/claude");
    Visit::of(command).says("claude", "failed", &["CLAUDE_PEERS_CLAUDE", "/nowhere/claude"], "");

    if ["/usr/local/bin/claude", "/usr/bin/claude", "/bin/claude"].iter().any(|path| Path::new(path).exists()) {
        return eprintln!("SKIPPED: Claude Code is installed for the whole machine, so it cannot be missing");
    }
    let mut command = doctor(&broker, &[]);
    command.env_remove("CLAUDE_PEERS_CLAUDE").env("PATH", "/usr/bin:/bin");
    Visit::of(command).says("claude", "failed", &["was not found"], "CLAUDE_PEERS_CLAUDE");
}

#[test]
fn a_missing_registration_is_named_and_made() {
    let broker = Broker::start();
    with_claude(&broker);
    fs::remove_file(broker.folder().join(".claude.json")).unwrap();
    visit(&broker, &[]).says("registration", "failed", &["not registered"], "claude-peers setup");
    let visited = visit(&broker, &["--fix"]);
    let finding = visited.says("registration", "ok", &[env!("CARGO_BIN_EXE_claude-peers-mcp")], "");
    assert_eq!((visited.code, &finding["fixed"]), (0, &json!(true)));
    let text = String::from_utf8(doctor(&broker, &["--fix"]).output().unwrap().stdout).unwrap();
    assert!(!text.contains("mended"), "there is nothing left to mend: {text}");

    // What cannot be mended says why.
    fs::remove_file(broker.folder().join(".claude.json")).unwrap();
    fs::write(
        broker.folder().join("claude-stand-in"),
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 2.1.330 || { echo no room >&2; exit 1; }\n",
    )
    .unwrap();
    let visited = visit(&broker, &["--fix"]);
    assert_eq!(visited.says("registration", "failed", &["not registered"], "--fix could not")["fixed"], false);
    visited.says("registration", "failed", &[], "no room");
}

#[test]
fn a_registration_under_another_name_or_path_is_named_and_left_to_the_person() {
    let broker = Broker::prepared(&[]);
    let home = broker.folder();
    with_claude(&broker);
    let server = env!("CARGO_BIN_EXE_claude-peers-mcp");
    let elsewhere = home.join("claude-peers-mcp");
    fs::copy(server, &elsewhere).unwrap();
    let plain = home.join("plain/claude-peers-mcp");
    fs::create_dir(plain.parent().unwrap()).unwrap();
    fs::write(&plain, "").unwrap();
    let cases = [
        (
            json!({"peers": {"command": server}}),
            "failed",
            "registered under the name peers",
            "claude mcp remove --scope user peers",
        ),
        (
            json!({"claude-peers": {"command": "/nowhere/claude-peers-mcp"}}),
            "failed",
            "there is no such program",
            "claude mcp add",
        ),
        (json!({"claude-peers": {"command": plain}}), "failed", "may not be executed", "claude mcp add"),
        (json!({"claude-peers": {"command": elsewhere}}), "warning", "not the one beside this program", "claude mcp add"),
        (
            json!({"claude-peers": {"command": "bun", "args": ["server.ts"]}}),
            "failed",
            "another program: bun server.ts",
            "claude mcp remove",
        ),
        (json!({"claude-peers": {"command": server, "args": ["--x"]}}), "failed", "arguments", "claude mcp add"),
        (
            json!({"claude-peers": {"command": server, "env": {"CLAUDE_PEERS_SOCKET": "/s"}}}),
            "warning",
            "CLAUDE_PEERS_SOCKET",
            "claude mcp add",
        ),
        (
            json!({"claude-peers": {"command": server}, "peers": {"command": server}}),
            "warning",
            "a second time, as peers",
            "remove --scope user peers",
        ),
    ];
    for (servers, state, words, help) in cases {
        register(home, servers);
        let before = fs::read(home.join(".claude.json")).unwrap();
        visit(&broker, &["--fix"]).says("registration", state, &[words], help);
        assert_eq!(fs::read(home.join(".claude.json")).unwrap(), before, "{words}: it is not ours to change");
    }
    fs::write(home.join(".claude.json"), "{\n  \"mcpServers\": {,}\n}").unwrap();
    visit(&broker, &["--fix"]).says("registration", "failed", &[".claude.json, line 2, column 18"], "correct");
    assert_eq!(fs::read_to_string(home.join(".claude.json")).unwrap(), "{\n  \"mcpServers\": {,}\n}");
}

// Settings and the clock.

#[test]
fn settings_that_cannot_be_used_are_named() {
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
fn a_clock_behind_what_has_happened_is_told() {
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
