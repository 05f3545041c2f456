//! The doctor on damaged, newer and read-only databases, and the broker program's database check.

use super::{NOBODY, Visit, as_nobody, visit, with_claude};
use crate::support::{Broker, events::Peer};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

fn check_database(broker: &Broker) -> (i32, Value) {
    let output = broker.command().arg("--check-database").stdout(Stdio::piped()).output().unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[test]
fn database_check_changes_nothing() {
    let mut broker = Broker::prepared(&[]);
    let (code, report) = check_database(&broker);
    assert_eq!((code, &report["state"]), (0, &json!("missing")));
    broker.launch();
    let peer = Peer::register(&broker.http(), "peer", json!({}));
    broker.http().post("/v1/send", &json!({"to": peer.id, "text": "hello"}));
    let (code, report) = check_database(&broker);
    assert_eq!(
        (code, &report["state"], &report["schema"], &report["mode"]),
        (0, &json!("ok"), &json!(9), &json!("0600")),
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
        (4, &json!("too_new"), &json!(99), &json!(9))
    );
    fs::write(broker.database(), "to be or not to be\n".repeat(1_000)).unwrap();
    let (code, report) = check_database(&broker);
    assert_eq!((code, &report["state"]), (1, &json!("foreign")));
    fs::remove_file(broker.database()).unwrap();
    fs::create_dir(broker.database()).unwrap();
    let (code, report) = check_database(&broker);
    assert_eq!((code, &report["state"]), (1, &json!("unreadable")));
    let unusable = broker.command().arg("--check-database").env("CLAUDE_PEERS_EXPIRY", "soon").status().unwrap();
    assert_eq!(unusable.code(), Some(2));
}

#[test]
fn damaged_database_is_reported_before_and_after_recovery() {
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
    visited.says("database", "warning", &["was damaged", "set aside as", "recovered rows"], "keep it as long");
    broker.restart();
    visit(&broker, &[]).says("database", "warning", &["set aside earlier", "peers.db.damaged-"], "keep it");
}

#[test]
fn newer_database_is_reported() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    let database = Connection::open(broker.database()).unwrap();
    let schema = include_str!("../fixtures/schema-1.sql");
    database.execute_batch(&format!("{schema}; CREATE TABLE future (x); PRAGMA user_version = 99")).unwrap();
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
fn file_of_another_program_is_reported() {
    let broker = Broker::prepared(&[]);
    with_claude(&broker);
    fs::write(broker.database(), "to be or not to be\n").unwrap();
    visit(&broker, &[]).says("database", "failed", &["no database of claude-peers", "left untouched"], "CLAUDE_PEERS_DB");
}

#[test]
fn read_only_database_is_reported() {
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

type Obstacle = fn(&Path);

/// A mount of a missing file leaves a folder in its place, and a program that once ran as root leaves root's files.
#[test]
fn unusable_file_beside_a_database_is_named() {
    let kinds: [(&str, Obstacle); 4] = [
        ("a folder", |file| fs::create_dir(file).unwrap()),
        ("a pipe", |file| assert!(Command::new("mkfifo").arg(file).status().unwrap().success())),
        ("a link", |file| symlink("/nowhere/file", file).unwrap()),
        ("root's", |file| fs::write(file, "").unwrap()),
    ];
    let mut broker = Broker::start();
    with_claude(&broker);
    assert!(broker.terminate().success());
    let is_root = rustix::process::geteuid().is_root();
    for (what, make) in kinds.into_iter().filter(|(what, _)| is_root || *what != "root's") {
        for ending in ["-wal", "-shm", "-journal"] {
            let file = PathBuf::from(format!("{}{ending}", broker.database().display()));
            make(&file);
            let (run, doctor) = if what == "root's" {
                fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
                chown(broker.folder(), Some(NOBODY), Some(NOBODY)).unwrap();
                chown(broker.database(), Some(NOBODY), Some(NOBODY)).unwrap();
                (as_nobody(&broker, "claude-peersd", &[]), as_nobody(&broker, "claude-peers", &["doctor"]))
            } else {
                (broker.command(), super::doctor(&broker, &[]))
            };
            let said = { run }.stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(said.status.code() == Some(1) && text.contains(file.to_str().unwrap()), "{what} {ending}: {text}");
            Visit::of(doctor).says("database", "failed", &[file.to_str().unwrap()], "CLAUDE_PEERS_DB");
            if file.is_dir() { fs::remove_dir(&file).unwrap() } else { fs::remove_file(&file).unwrap() }
        }
    }
}

/// A file system that gives no shared memory, as 9p does: the kernel refuses every shared mapping of a file.
#[test]
fn file_system_without_shared_memory_is_named() {
    let mut broker = Broker::prepared(&[]);
    with_claude(&broker);
    let refused = |broker: &Broker| {
        let output = without_shared_memory(&broker.command()).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let words = ["shared memory", broker.folder().to_str().unwrap(), "set CLAUDE_PEERS_DB to a file on a local disk"];
        assert!(output.status.code() == Some(2) && words.iter().all(|word| said.contains(word)), "{}: {said}", output.status);
    };
    let visited = |broker: &Broker| {
        let visited = Visit::of(without_shared_memory(&super::doctor(broker, &[])));
        visited.says("database", "failed", &["no shared memory", broker.folder().to_str().unwrap()], "CLAUDE_PEERS_DB");
    };
    refused(&broker);
    visited(&broker);
    broker.launch();
    let peer = Peer::register(&broker.http(), "peer", json!({}));
    broker.http().post("/v1/send", &json!({"to": peer.id, "text": "hello"}));
    broker.kill();
    let before = fs::read(broker.database()).unwrap();
    refused(&broker);
    visited(&broker);
    assert_eq!(fs::read(broker.database()).unwrap(), before);
    broker.launch();
    assert_eq!(broker.count("SELECT count(*) FROM message"), 1);
}

/// The command under a filter of system calls.
fn without_shared_memory(command: &Command) -> Command {
    let mut filtered = Command::new("perl");
    filtered.args(["-e", NO_SHARED_MEMORY]).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    filtered.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    filtered
}

/// Installs a filter for seccomp(2) that lets mmap(2) with `MAP_SHARED` fail with `ENODEV`, then becomes the program in its arguments.
const NO_SHARED_MEMORY: &str = r#"
    require POSIX;
    my ($prctl, $mmap) = (POSIX::uname())[4] eq "aarch64" ? (167, 222) : (157, 9);
    my @filter = (
        [0x20, 0, 0, 0],          # load the number of the call
        [0x15, 0, 4, $mmap],      # if it is not mmap, allow
        [0x20, 0, 0, 16 + 8 * 3], # load its flags
        [0x54, 0, 0, 0x0f],       # the type of the mapping
        [0x15, 0, 1, 1],          # if it is not MAP_SHARED, allow
        [0x06, 0, 0, 0x00050000 | 19],
        [0x06, 0, 0, 0x7fff0000],
    );
    my $code = join "", map { pack "SCCL", @$_ } @filter;
    my $program = pack "S x6 P", scalar @filter, $code;
    syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "no new privileges: $!";
    syscall($prctl, 22, 2, $program, 0, 0) == 0 or die "filter: $!";
    exec @ARGV or die "$ARGV[0]: $!";
"#;
