//! The environment that a program is started in: variables that nobody expects, sockets that do not fit, inherited limits. What cannot
//! be used is an error that names it; what does not matter has no effect.

use crate::support::{
    Broker, Session,
    activation::activated,
    broker::signal,
    events::Peer,
    eventually, folder, git,
    mcp::{SERVER, Start},
};
use serde_json::json;
use std::{
    ffi::OsString,
    fs,
    os::unix::{
        ffi::OsStringExt,
        fs::PermissionsExt,
        net::{UnixDatagram, UnixListener},
    },
    process::{Child, Command, Stdio},
};

/// Bytes that are no UTF-8.
fn no_text(start: &str) -> OsString {
    OsString::from_vec([start.as_bytes(), b"\xff"].concat())
}

/// The exit code of a start of the broker that must fail.
fn refused(mut command: Command) -> Option<i32> {
    let mut child = Running(command.spawn().unwrap());
    eventually("it refuses to start", || child.0.try_wait().unwrap()).code()
}

/// What the broker logs until it stops, if it is started with this variable and told to stop once it is ready.
fn log_with(variable: &str, value: &str) -> String {
    let broker = Broker::prepared(&[]);
    let mut child = Running(broker.command().env(variable, value).spawn().unwrap());
    eventually("it is ready", || broker.log().contains(" ready: ").then_some(()));
    signal(child.0.id(), "TERM");
    assert!(child.0.wait().unwrap().success());
    broker.log()
}

/// The command after this preparation in a shell, such as `umask`. It is bash, because dash ignores no SIGCHLD.
fn after(preparation: &str, command: &Command) -> Command {
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(format!("{preparation}; exec \"$0\" \"$@\"")).arg(command.get_program()).args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    if let Some(directory) = command.get_current_dir() {
        shell.current_dir(directory);
    }
    shell
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

// The service manager.

#[cfg(target_os = "linux")]
#[test]
fn abstract_service_manager_is_told_of_readiness() {
    use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
    let broker = Broker::prepared(&[]);
    let name = format!("claude-peers-{}", broker.folder().file_name().unwrap().to_str().unwrap());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager.set_nonblocking(true).unwrap();
    let _child = Running(broker.command().env("NOTIFY_SOCKET", format!("@{name}")).spawn().unwrap());
    let mut said = [0; 4096];
    let size = eventually("it says something", || manager.recv(&mut said).ok());
    let said = String::from_utf8_lossy(&said[..size]);
    assert!(said.starts_with("READY=1\n"), "{said}");
}

#[test]
fn empty_notify_socket_counts_as_not_set() {
    let log = log_with("NOTIFY_SOCKET", "");
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn missing_service_manager_is_named() {
    let log = log_with("NOTIFY_SOCKET", "/nowhere/notify\u{1b}[2J");
    assert!(log.contains("NOTIFY_SOCKET") && log.contains("/nowhere/notify\\u{1b}[2J"), "{log}");
}

#[test]
fn watchdog_of_zero_is_off() {
    let mut broker = Broker::with(&[("WATCHDOG_USEC", "0")]);
    (0..20).for_each(|_| assert_eq!(broker.http().get("/v1/status").status, 200));
    assert!(broker.terminate().success());
    let mut said = String::new();
    while !said.contains("STOPPING=1") {
        said = broker.tells();
        assert!(!said.contains("WATCHDOG=1"), "{said}");
    }
}

#[test]
fn second_socket_of_a_name_is_refused() {
    for name in ["unix", "tcp"] {
        let broker = Broker::prepared(&[]);
        let place = folder();
        let socket = |file: &str| match name {
            "unix" => UnixListener::bind(place.path().join(file)).unwrap().into(),
            _ => std::net::TcpListener::bind("127.0.0.1:0").unwrap().into(),
        };
        assert_eq!(refused(activated(&broker, [(name, socket("a")), (name, socket("b"))])), Some(1));
        let log = broker.log();
        assert!(log.contains(&format!("4 as {name:?}: there is another")), "{log}");
    }
}

#[test]
fn unusable_descriptors_name_their_variables() {
    for (count, names) in [("1", "unix"), ("999999999", "unix"), ("4294967295", ""), ("-1", ""), ("", ""), ("many", "")] {
        let broker = Broker::prepared(&[]);
        let mut command = broker.command_after("exec 3<&-; export LISTEN_PID=$$");
        command.env("LISTEN_FDS", count).env("LISTEN_FDNAMES", names);
        assert_eq!(refused(command), Some(1), "{count:?}");
        let log = broker.log();
        assert!(log.contains(&format!("LISTEN_FDS={count:?}")) && log.contains("unset LISTEN_PID"), "{log}");
    }
}

// Settings.

#[test]
fn unusable_home_is_shown() {
    let broker = Broker::prepared(&[]);
    let mut command = broker.command();
    command.env_remove("CLAUDE_PEERS_SOCKET").env_remove("CLAUDE_PEERS_DB").env("HOME", "in/here");
    assert_eq!(refused(command), Some(2));
    assert!(broker.log().contains("HOME=\"in/here\""), "{}", broker.log());
}

#[test]
fn long_value_makes_no_long_error() {
    let long = "/9".repeat(50_000);
    for variable in ["CLAUDE_PEERS_PORT", "CLAUDE_PEERS_SOCKET", "HOME"] {
        let broker = Broker::prepared(&[]);
        let mut command = broker.command();
        command.env_remove("CLAUDE_PEERS_SOCKET").env(variable, &long);
        assert_eq!(refused(command), Some(2), "{variable}");
        let log = broker.log();
        assert!(log.len() < 1_000 && log.contains(&format!("{variable}=\"/9/9")) && log.contains("allowed: "), "{}", log.len());
    }
}

#[test]
fn errors_show_no_key_or_password() {
    let broker = Broker::prepared(&[]);
    let key = ("OPENAI_API_KEY", OsString::from("sk-secret"));
    let url = |url: &str| ("OPENAI_BASE_URL", OsString::from(url));
    for env in [
        [("OPENAI_API_KEY", no_text("sk-secret")), url("http://127.0.0.1:9")],
        [key.clone(), url("http://me:secret@[")],
        [key.clone(), url("http://me:secret@127.0.0.1:9/?query")],
        [key.clone(), url("ftp://me:sec@ret@127.0.0.1/")],
        [key.clone(), url(&format!("ftp://me:secret{}@127.0.0.1/", "x".repeat(1_000)))],
        [key, ("OPENAI_BASE_URL", no_text("http://me:secret@127.0.0.1:9/"))],
    ] {
        let output = broker.cli(&["summarize"]).envs(env.clone()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("OPENAI_") && !said.contains("sec") && !said.contains("ret@"), "{env:?}: {said}");
    }
    let broker = Broker::prepared(&[("CLAUDE_PEERS_METRICS", "http://me:secret@127.0.0.1:9")]);
    assert_eq!(broker.refused(), 2);
    assert!(broker.log().contains("@127.0.0.1:9") && !broker.log().contains("secret"), "{}", broker.log());
}

#[test]
fn socket_that_cannot_be_made_names_its_setting() {
    let place = folder();
    let inside = |file: &str| place.path().join(file).to_str().unwrap().to_owned();
    fs::create_dir(inside("folder")).unwrap();
    fs::write(inside("file"), "").unwrap();
    for socket in ["/proc/broker.sock".to_owned(), "/dev/null".to_owned(), inside("folder"), inside("file/broker.sock")] {
        let broker = Broker::prepared(&[("CLAUDE_PEERS_SOCKET", &socket)]);
        assert_eq!(broker.refused(), 1, "{socket}");
        let log = broker.log();
        assert!(log.contains(&socket) && log.contains("CLAUDE_PEERS_SOCKET") && !log.contains("remove it"), "{log}");
    }
}

#[cfg(all(feature = "dbus", target_os = "linux"))]
#[test]
fn unusable_bus_names_its_variable() {
    for address in ["here", "unix:path=/nowhere", "unixexec:path=/bin/false"] {
        let log = log_with("DBUS_SESSION_BUS_ADDRESS", address);
        assert!(log.contains(&format!("its address is {address:?}, and DBUS_SESSION_BUS_ADDRESS")), "{log}");
    }
}

#[test]
fn unusable_inbox_is_named() {
    let (broker, place) = (Broker::start(), folder());
    let inbox = place.path().join("no\u{1b}[2Jinbox");
    let env = vec![("CLAUDE_CODE_MESSAGING_SOCKET".to_owned(), inbox.to_str().unwrap().to_owned())];
    let mut session = Start { broker: &broker, directory: place.path(), session_id: "s", delivery: "", env }.go();
    session.tool("list_peers", json!({"scope": "machine"}));
    let log = session.log();
    assert!(log.contains("no\\u{1b}[2Jinbox: No such file"), "{log}");
}

#[test]
fn argument_that_is_no_text_is_refused() {
    for program in [SERVER, env!("CARGO_BIN_EXE_claude-peersd"), env!("CARGO_BIN_EXE_claude-peers")] {
        let output = Command::new(program).arg(no_text("--")).env_clear().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{program}: {said}");
        assert!(!said.contains("panicked"), "{program}: {said}");
    }
}

// Limits and masks.

#[test]
fn limit_on_file_sizes_is_an_error() {
    let broker = Broker::prepared(&[]);
    assert_eq!(refused(broker.command_after("ulimit -f 32")), Some(1), "{}", broker.log());
    assert!(broker.log().contains("ERROR"), "{}", broker.log());

    let mut broker = Broker::prepared(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    broker.launch_as(broker.command_after("ulimit -f 500"));
    let peer = Peer::register(&broker.http(), "peer", json!({}));
    let text = "x".repeat(20_000);
    let refused =
        (0..100).map(|number| broker.http().post("/v1/send", &json!({"to": peer.id, "text": format!("{number}{text}")})));
    let refused = refused.into_iter().find(|sent| sent.status != 200).expect("the limit is reached");
    assert_eq!((refused.status, refused.code()), (500, "internal".into()));
    assert_eq!(broker.http().get("/v1/status").status, 200);
    assert!(broker.terminate().success());
}

#[test]
fn log_of_a_started_broker_is_private() {
    let broker = Broker::prepared(&[]);
    let umask = |words: &str| after("umask 0", &broker.cli(&[words])).output().unwrap();
    let started = umask("start");
    let log = broker.socket().with_extension("log");
    let mode = fs::metadata(&log).map(|log| log.permissions().mode() & 0o777);
    let stopped = umask("stop");
    assert_eq!(mode.ok(), Some(0o600), "{started:?} {stopped:?}");
}

#[test]
fn ignored_children_are_still_waited_for() {
    const IGNORING: &str = "trap '' CHLD";
    let (broker, place) = (Broker::start(), folder());
    git::repository(place.path());
    let start = Start { broker: &broker, directory: place.path(), session_id: "s", delivery: "", env: Vec::new() };
    let mut session = Session::spawn(after(IGNORING, &start.command()));
    session.handshake();
    let summary = || Some(broker.peers().first()?["summary"].as_str()?.to_owned()).filter(|summary| !summary.is_empty());
    let summary = eventually("it has a summary", summary);
    assert!(summary.contains("Last commit: first commit."), "{summary}: {}", session.log());

    let output = after(IGNORING, &broker.cli(&["demo"])).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn limit_of_open_files_is_not_a_missing_program() {
    let broker = Broker::prepared(&[]);
    let output = after("ulimit -n 10", &broker.cli(&["start"])).output().unwrap();
    drop(broker.cli(&["stop"]).output());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("ulimit -a") && !said.contains("install"), "{said}");
}

// The log.

#[test]
fn failure_of_the_search_index_is_explained() {
    let mut broker = Broker::prepared(&[]);
    fs::create_dir(broker.folder().join("peers.db-search")).unwrap();
    broker.launch();
    let words = "the search index is not up to date";
    let log = eventually("it is logged", || Some(broker.log()).filter(|log| log.contains(words)));
    assert!(log.contains(&format!("{words}: ")), "{log}");
}
