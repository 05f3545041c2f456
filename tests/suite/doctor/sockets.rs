//! The doctor on sockets that are stale, taken, open to others, or unanswered.

use super::{NOBODY, Visit, as_nobody, visit, with_claude};
use crate::support::{Broker, broker::signal, eventually};
use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::{Command, Stdio},
};

#[test]
fn only_a_stale_socket_is_removed() {
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

    // Another program listens there, so its socket stays.
    let stranger = UnixListener::bind(broker.socket()).unwrap();
    let answering = std::thread::spawn(move || drop((stranger.accept().unwrap(), stranger.accept().unwrap())));
    visit(&broker, &["--fix"]).says("unix-socket", "failed", &["cannot be reached"], "start it again");
    assert!(broker.socket().exists());
    answering.join().unwrap();
}

#[test]
fn pipe_in_place_of_the_token_stops_nobody() {
    let broker = Broker::start();
    with_claude(&broker);
    let token = broker.socket().with_extension("token");
    drop(fs::remove_file(&token));
    assert!(Command::new("mkfifo").arg(&token).status().unwrap().success());
    visit(&broker, &[]).says("tcp-socket", "ok", &["served by the same broker"], "");
}

/// Claude Code's sandbox for Bash forbids Unix sockets with a filter like this one.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn sandbox_is_named_as_the_cause() {
    const FILTERED: &str = r#"
        use strict;
        my $filter = join "", map { pack "SCCL", @$_ }
            [0x20, 0, 0, 0], [0x15, 0, 3, 41],   # socket(
            [0x20, 0, 0, 16], [0x15, 0, 1, 1],   # AF_UNIX
            [0x06, 0, 0, 0x50001],               # EPERM
            [0x06, 0, 0, 0x7fff0000];
        my $program = pack "Sx6P", length($filter) / 8, $filter;
        syscall(157, 38, 1, 0, 0, 0) == 0 && syscall(157, 22, 2, $program) == 0 or die "no filter: $!";
        exec @ARGV;
    "#;
    let broker = Broker::start();
    with_claude(&broker);
    for arguments in [&["doctor"][..], &["peers"]] {
        let whole = if arguments == ["doctor"] { super::doctor(&broker, &[]) } else { broker.cli(arguments) };
        let mut command = std::process::Command::new("perl");
        command.args(["-e", FILTERED]).arg(whole.get_program()).args(whole.get_args());
        command.envs(whole.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].map(|stream| String::from_utf8_lossy(&stream).into_owned()).concat();
        assert!(said.contains("a sandbox") && said.contains("sandbox.excludedCommands"), "{arguments:?}: {said}");
        assert!(!said.contains("another user"), "{arguments:?}: {said}");
    }
}

#[test]
fn hung_broker_differs_from_no_broker() {
    let broker = Broker::start();
    with_claude(&broker);
    signal(broker.pid(), "STOP");
    let visited = visit(&broker, &[]);
    signal(broker.pid(), "CONT");
    visited.says("unix-socket", "failed", &["no answer within"], "hangs");
}

#[test]
fn program_that_holds_the_port_is_named() {
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
    visit(&broker, &[]).says("tcp-socket", "failed", &[&format!("no program listens on port {port} now")], "claude-peers stop");
}

#[test]
fn user_whose_broker_holds_the_port_is_named() {
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
    visited.says("tcp-socket", "warning", &words, "claude-peers setup --port");
    visited.says("unix-socket", "ok", &[ours.socket().to_str().unwrap()], "");
}

#[test]
fn permissions_of_socket_and_database_are_fixed() {
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
