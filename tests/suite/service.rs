//! The broker as a service: socket activation, notifications, shutdown, taken ports and socket files, and invalid settings.

use crate::support::{
    Broker, PATIENCE, Session,
    activation::{activated, bind_unix, said},
    broker::signal,
    events::Peer,
    eventually, folder,
    http::{Conversation, Http},
    mcp::Start,
};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::{
    ffi::OsString,
    fs,
    net::TcpListener,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStringExt,
            fs::MetadataExt,
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::Path,
    process::Stdio,
    time::Duration,
};

/// The headers of a request that waits for `100 Continue` before it sends its body.
const HEARD: [(&str, &str); 2] = [("Content-Type", "application/json"), ("Expect", "100-continue")];

fn listener(broker: &Broker, kind: &str) -> Value {
    let status = broker.http().get("/v1/status").json();
    status["listeners"].as_array().unwrap().iter().find(|listener| listener["kind"] == kind).unwrap().clone()
}

// Socket activation.

#[test]
fn given_sockets_are_recognised_by_name() {
    for (unix_name, tcp_name) in [("unix", "tcp"), ("claude-peers.socket", "claude-peers-tcp.socket")] {
        for unix_first in [true, false] {
            let mut broker = Broker::prepared(&[]);
            // The service manager keeps them listening before the broker starts and after it has exited.
            let (unix, tcp) = (bind_unix(&broker), TcpListener::bind("127.0.0.1:0").unwrap());
            let over_tcp = Http::tcp(tcp.local_addr().unwrap().port());
            for round in 0..2 {
                let early = [said(&broker.http()), said(&over_tcp)];
                let unix = (unix_name, OwnedFd::from(unix.try_clone().unwrap()));
                let tcp = (tcp_name, OwnedFd::from(tcp.try_clone().unwrap()));
                let descriptors = if unix_first { [unix, tcp] } else { [tcp, unix] };
                broker.launch_as(activated(&broker, descriptors));
                for mut early in early {
                    let status = early.answer().unwrap().json();
                    assert_eq!(status["pid"], broker.pid());
                    for listener in status["listeners"].as_array().unwrap() {
                        assert_eq!((&listener["origin"], &listener["listening"]), (&json!("service manager"), &json!(true)));
                    }
                }
                assert_eq!(listener(&broker, "unix")["address"], *broker.socket().to_str().unwrap());
                assert!(broker.terminate().success(), "round {round}");
                assert!(broker.socket().exists(), "the socket's file is the service manager's");
            }
        }
    }
}

#[test]
fn socket_that_was_not_given_is_bound() {
    let mut broker = Broker::prepared(&[]);
    let unix = bind_unix(&broker);
    broker.launch_as(activated(&broker, [("unix", OwnedFd::from(unix))]));
    assert_eq!(
        (&listener(&broker, "unix")["origin"], &listener(&broker, "tcp")["origin"]),
        (&json!("service manager"), &json!("own"))
    );
    assert_eq!(broker.tcp().get("/health").status, 200);

    let mut broker = Broker::prepared(&[]);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    broker.launch_as(activated(&broker, [("tcp", OwnedFd::from(tcp))]));
    assert_eq!(
        (&listener(&broker, "unix")["origin"], &listener(&broker, "tcp")["origin"]),
        (&json!("own"), &json!("service manager"))
    );
    assert_eq!((broker.port, broker.tcp().get("/health").status), (port, 200));
}

#[test]
fn mislabelled_descriptor_is_refused() {
    let unix = || OwnedFd::from(UnixListener::bind(folder().path().join("s")).unwrap());
    let tcp = |address: &str| OwnedFd::from(TcpListener::bind(address).unwrap());
    let cases: [(&str, OwnedFd, &str); 7] = [
        ("http", tcp("127.0.0.1:0"), "the name is unknown"),
        ("", tcp("127.0.0.1:0"), "the name is unknown"),
        ("unix", tcp("127.0.0.1:0"), "it is no listening Unix socket"),
        ("unix", OwnedFd::from(UnixStream::pair().unwrap().0), "it is no listening Unix socket"),
        ("unix", OwnedFd::from(UnixDatagram::unbound().unwrap()), "it is no listening Unix socket"),
        ("tcp", unix(), "it does not listen on a loopback address"),
        ("tcp", tcp("0.0.0.0:0"), "it does not listen on a loopback address"),
    ];
    for (name, descriptor, words) in cases {
        let broker = Broker::prepared(&[]);
        let mut child = activated(&broker, [(name, descriptor)]).spawn().unwrap();
        let status = eventually("it refuses to start", || child.try_wait().unwrap());
        let log = broker.log();
        assert_eq!(status.code(), Some(1), "{name:?}: {log}");
        assert!(log.contains(words) && log.contains(&format!("{name:?}")), "{name:?}: {log}");
    }
    let broker = Broker::prepared(&[]);
    let mut command = activated(&broker, [("unix", unix())]);
    let mut child = command.env("LISTEN_FDNAMES", "unix:tcp").spawn().unwrap();
    let status = eventually("it refuses to start", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(1), "more names than descriptors");
    assert!(broker.log().contains("LISTEN_FDNAMES"), "{}", broker.log());
}

#[test]
fn sockets_given_to_another_process_are_ignored() {
    let mut broker = Broker::prepared(&[]);
    let mut command = broker.command();
    command.envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "unix:tcp")]);
    broker.launch_as(command);
    assert_eq!(listener(&broker, "unix")["origin"], "own");
}

// Notifications to the service manager.

#[test]
fn broker_reports_readiness_when_it_answers() {
    let broker = Broker::start();
    assert!(broker.ready.contains("READY=1") && broker.ready.contains("STATUS=0 peers"), "{}", broker.ready);
    assert_eq!(broker.http().get("/v1/hello").json()["pid"], broker.pid());
}

#[test]
fn watchdog_is_fed_by_the_work_itself() {
    let broker = Broker::with(&[("WATCHDOG_USEC", "200000")]);
    (0..3).for_each(|_| broker.tells_that("WATCHDOG=1"));

    // While the writer waits for another process's lock, nothing feeds the watchdog.
    let database = Connection::open(broker.database()).unwrap();
    database.busy_timeout(PATIENCE).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Earlier notifications are read first; then there is silence for ten times their interval.
    let said = (0..100).take_while(|_| broker.tells_within(Duration::from_secs(1)).is_some()).count();
    assert!(said < 100, "it says that it is well while its writer waits");
    database.execute_batch("ROLLBACK").unwrap();
    broker.tells_that("WATCHDOG=1");
}

#[test]
fn service_manager_that_never_reads_delays_nothing() {
    let mut broker = Broker::start();
    let queue = UnixDatagram::unbound().unwrap();
    queue.connect(broker.folder().join("notify.sock")).unwrap();
    queue.set_nonblocking(true).unwrap();
    while queue.send(b"STATUS=full").is_ok() {}
    let peer = Peer::register(&broker.http(), "peer", json!({}));
    let events = peer.follow(&broker.http());
    assert_eq!(broker.http().get("/v1/status").json()["peers"], 1);
    drop(events);
    assert!(broker.terminate().success());
}

#[test]
fn service_manager_is_told_the_peer_count() {
    let broker = Broker::start();
    assert!(broker.ready.contains("STATUS=0 peers"), "{}", broker.ready);
    let peer = Peer::register(&broker.http(), "peer", json!({}));
    let events = peer.follow(&broker.http());
    assert_eq!(broker.tells(), "STATUS=1 peer\n");
    peer.over(&broker.http()).post("/v1/unregister", &json!({}));
    assert_eq!(broker.tells(), "STATUS=0 peers\n");
    drop(events);
}

/// A request whose head the broker has read, and whose body is not sent yet.
fn begun(http: &Http, path: &str, body: &str) -> Conversation {
    let mut conversation = http.converse();
    let whole = http.written("POST", path, &HEARD, body);
    conversation.say(&whole[..whole.len() - body.len()]).unwrap();
    assert_eq!(conversation.answer().unwrap().status, 100);
    conversation
}

#[test]
fn sigterm_ends_waits_and_finishes_requests() {
    let mut broker = Broker::start();
    let (reader, writer) =
        (Peer::register(&broker.http(), "reader", json!({})), Peer::register(&broker.http(), "writer", json!({})));
    let mut events = reader.follow(&broker.http());
    let as_reader = reader.over(&broker.http());
    let mut idle = broker.tcp().converse();
    assert_eq!(idle.ask("GET", "/health", "").status, 200);
    let take = json!({"lease": "l", "route": "check_messages", "waitSeconds": 3600}).to_string();
    let mut taking = begun(&as_reader, "/v1/take", &take);
    taking.say(take.as_bytes()).unwrap();
    let body = json!({"to": writer.id, "text": "just in time"}).to_string();
    let mut half = begun(&broker.http(), "/v1/send", &body);
    half.say(&body.as_bytes()[..10]).unwrap();

    signal(broker.pid(), "TERM");
    broker.tells_that("STOPPING=1");
    half.say(&body.as_bytes()[10..]).unwrap();
    let accepted = half.answer().unwrap().json();
    assert_eq!(accepted["state"], "queued");
    assert_eq!(taking.answer().unwrap().code(), "stopping");
    assert_eq!(events.next(), None);
    assert!(idle.is_closed());
    assert!(broker.wait().success());
    let log = broker.log();
    assert!(log.contains("SIGTERM: stopping") && log.contains("INFO stopped") && !log.contains("cut off"), "{log}");
    assert!(!log.contains("ERROR"), "a normal stop is no error: {log}");
    assert!(!broker.socket().exists(), "its socket is gone");
    assert!(!broker.folder().join("peers.db-wal").exists(), "the database is one whole file");

    broker.launch();
    let entry = broker.http().get(&format!("/v1/messages/{}", accepted["messageId"].as_str().unwrap())).json();
    assert_eq!(entry["text"], "just in time");
}

#[test]
fn endless_request_does_not_delay_shutdown() {
    let mut broker = Broker::start();
    let mut endless = begun(&broker.http(), "/v1/send", "a body that never comes");
    assert!(broker.terminate().success());
    assert!(broker.log().contains("cut off"), "{}", broker.log());
    assert!(endless.is_closed());
}

#[test]
fn ctrl_c_ends_the_broker() {
    let mut broker = Broker::start();
    signal(broker.pid(), "INT");
    assert!(broker.wait().success());
    assert!(broker.log().contains("SIGINT: stopping"), "{}", broker.log());
}

// The port and the socket file.

#[test]
fn taken_port_is_reported_with_its_holder() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let broker = Broker::with(&[("CLAUDE_PEERS_PORT", &port.to_string())]);
    let tcp = listener(&broker, "tcp");
    assert_eq!((&tcp["listening"], &tcp["address"]), (&json!(false), &json!(format!("127.0.0.1:{port}"))));
    let program = std::env::current_exe().unwrap();
    let human = String::from_utf8(broker.cli(&["status"]).output().unwrap().stdout).unwrap();
    for told in [tcp["problem"].as_str().unwrap(), &broker.log(), &human] {
        for words in [format!("port {port} is held by process {}", std::process::id()), program.to_str().unwrap().to_owned()] {
            assert!(told.contains(&words), "{words}: {told}");
        }
    }
    let place = folder();
    let mut session = Session::start(&broker, place.path(), "session");
    assert!(session.peers().is_empty(), "the Unix socket serves");
}

#[test]
fn database_is_closed_when_the_port_is_taken() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut broker = Broker::prepared(&[("CLAUDE_PEERS_PORT", &held.local_addr().unwrap().port().to_string())]);
    broker.launch();
    assert!(broker.terminate().success());
    assert!(!broker.database().with_extension("db-wal").exists(), "{}", broker.log());
}

#[test]
fn only_a_stale_socket_is_replaced() {
    let mut broker = Broker::prepared(&[]);
    drop(bind_unix(&broker));
    assert!(broker.socket().exists());
    broker.launch();
    let socket = || fs::symlink_metadata(broker.socket()).unwrap().ino();
    let (pid, inode) = (broker.pid(), socket());

    let second = Broker::prepared(&[("CLAUDE_PEERS_SOCKET", broker.socket().to_str().unwrap())]);
    assert_eq!(second.refused(), 3);
    let words = format!("another broker already serves {}", broker.socket().display());
    assert!(second.log().contains(&words) && second.log().contains("claude-peers stop"), "{}", second.log());
    assert_eq!((&broker.http().get("/v1/hello").json()["pid"], socket()), (&json!(pid), inode), "the first one is untouched");
}

#[test]
fn shutdown_removes_only_its_own_socket() {
    let mut broker = Broker::start();
    fs::remove_file(broker.socket()).unwrap();
    let other = UnixListener::bind(broker.socket()).unwrap();
    assert!(broker.terminate().success());
    assert!(UnixStream::connect(broker.socket()).is_ok(), "somebody else's socket was removed");
    drop(other);
}

#[test]
fn file_that_is_not_a_socket_is_kept() {
    let broker = Broker::prepared(&[]);
    drop(bind_unix(&broker));
    fs::remove_file(broker.socket()).unwrap();
    fs::write(broker.socket(), "precious").unwrap();
    assert_eq!(broker.refused(), 1);
    assert!(broker.log().contains(&format!("binding {}: there is a file that is no socket", broker.socket().display())));
    assert_eq!(fs::read_to_string(broker.socket()).unwrap(), "precious");
}

#[test]
fn two_brokers_never_share_a_database() {
    let broker = Broker::start();
    let second = Broker::prepared(&[("CLAUDE_PEERS_DB", broker.database().to_str().unwrap())]);
    assert_eq!(second.refused(), 3);
    let words = format!("is in use by another claude-peersd (process {})", broker.pid());
    assert!(second.log().contains(&words), "{}", second.log());
    assert!(!second.socket().exists(), "it never listened");
}

#[test]
fn one_of_many_simultaneous_brokers_serves() {
    let broker = Broker::prepared(&[]);
    let mut started: Vec<_> = (0..5).map(|_| broker.command().spawn().unwrap()).collect();
    let mut ended = Vec::new();
    eventually("all but one have ended", || {
        started.retain_mut(|child| match child.try_wait().unwrap() {
            Some(status) => {
                ended.push(status.code());
                false
            }
            None => true,
        });
        (started.len() <= 1).then_some(())
    });
    assert_eq!(ended, [Some(3); 4], "{}", broker.log());
    let status =
        eventually("the one answers", || broker.http().try_connect().ok().map(|_| broker.http().get("/v1/status").json()));
    assert_eq!(status["pid"], started[0].id());
    started[0].kill().unwrap();
    started[0].wait().unwrap();
}

// Settings.

#[test]
fn invalid_setting_stops_the_broker() {
    let long = format!("/{}", "x".repeat(103));
    for (variable, value, allowed) in [
        ("CLAUDE_PEERS_PORT", "99999", "(a port"),
        ("CLAUDE_PEERS_PORT", "-1", "(a port"),
        ("CLAUDE_PEERS_PORT", "http", "(a port"),
        ("CLAUDE_PEERS_SOCKET", "run/broker.sock", "an absolute path"),
        ("CLAUDE_PEERS_SOCKET", &long, "at most 103 bytes"),
        ("CLAUDE_PEERS_SOCKET", "/", "an absolute path"),
        ("CLAUDE_PEERS_DB", "peers.db", "the absolute path of a file"),
        ("CLAUDE_PEERS_LOG", "loud", "error, warn, info, debug or trace"),
        ("CLAUDE_PEERS_RATE_LIMIT", "-5", "a whole number"),
        ("CLAUDE_PEERS_RATE_LIMIT", "many", "0 for no limit"),
        ("CLAUDE_PEERS_RATE_BURST", "0", "1 to"),
        ("CLAUDE_PEERS_REPEAT_LIMIT", "0", "1 to"),
        ("CLAUDE_PEERS_TEXT_LIMIT", "1GB", "(bytes)"),
        ("CLAUDE_PEERS_TEXT_LIMIT", "99999999999", "1 to 16777216"),
        ("CLAUDE_PEERS_SUMMARY_LIMIT", "1e3", "(characters)"),
        ("CLAUDE_PEERS_WAITING_LIMIT", "0", "1 to"),
        ("CLAUDE_PEERS_EXPIRY", "7", "a span of time"),
        ("CLAUDE_PEERS_EXPIRY", "0d", "such as 90s, 30m, 12h or 7d"),
        ("CLAUDE_PEERS_EXPIRY", "-1d", "a span of time"),
        ("CLAUDE_PEERS_EXPIRY", "7 d", "a span of time"),
        ("CLAUDE_PEERS_EXPIRY", "7w", "a span of time"),
        ("CLAUDE_PEERS_EXPIRY", "7é", "a span of time"),
        ("CLAUDE_PEERS_EXPIRY", "99999999999999999999d", "a span of time"),
        ("CLAUDE_PEERS_HISTORY", "for ever", "a span of time"),
    ] {
        let broker = Broker::prepared(&[(variable, value)]);
        assert_eq!(broker.refused(), 2, "{variable}={value}");
        let log = broker.log();
        assert!(log.contains(&format!("{variable}={value:?}")) && log.contains("allowed: ") && log.contains(allowed), "{log}");
        assert!(!broker.database().exists() && !broker.socket().exists(), "{variable}: something was made");
    }
    let broker = Broker::prepared(&[]);
    let mut command = broker.command();
    let mut child = command.env("CLAUDE_PEERS_HISTORY", OsString::from_vec(b"30\xff".to_vec())).spawn().unwrap();
    assert_eq!(eventually("it refuses to start", || child.try_wait().unwrap()).code(), Some(2));
    assert!(broker.log().contains("a span of time"), "{}", broker.log());
}

#[test]
fn unknown_argument_is_a_usage_error() {
    let broker = Broker::prepared(&[]);
    for (arguments, code) in [(&["--port=1"][..], 2), (&["serve"], 2), (&["--help"], 0), (&["--version"], 0)] {
        assert_eq!(broker.command().args(arguments).status().unwrap().code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn command_line_and_tools_report_invalid_settings() {
    let (broker, place) = (Broker::start(), folder());
    let relative = [("CLAUDE_PEERS_SOCKET", "run/broker.sock")];
    let output = broker.cli(&["status", "--json"]).envs(relative).output().unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &error["error"]["code"]), (Some(2), &json!("invalid_setting")));
    let output = broker.cli(&["peers"]).envs(relative).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(said.contains("CLAUDE_PEERS_SOCKET=\"run/broker.sock\"") && said.contains("allowed: an absolute path"), "{said}");

    for (variable, value, allowed) in [
        ("CLAUDE_PEERS_DELIVERY", "pigeon", "auto, inbox, channel or pull"),
        ("CLAUDE_PEERS_SOCKET", "run/broker.sock", "an absolute path"),
    ] {
        let env = vec![(variable.to_owned(), value.to_owned())];
        let mut session = Start { broker: &broker, directory: place.path(), session_id: "s", delivery: "", env }.go();
        let words = session.tool_error("list_peers", json!({"scope": "machine"}));
        assert!(words.contains(&format!("{variable}={value:?}")) && words.contains(allowed), "{words}");
    }
}

#[test]
fn long_home_names_the_way_out() {
    let (broker, place) = (Broker::prepared(&[]), folder());
    let long = place.path().join("x".repeat(90));
    fs::create_dir(&long).unwrap();
    let long = long.to_str().unwrap();
    let mut environments = vec![("XDG_RUNTIME_DIR", vec![("XDG_RUNTIME_DIR", long), ("HOME", "/root")])];
    if !Path::new(&format!("/run/user/{}", rustix::process::getuid().as_raw())).exists() {
        environments.push(("HOME", vec![("HOME", long)]));
    }
    for (variable, environment) in environments {
        let named = |said: &str| {
            let words = [&format!("{variable}={long:?}"), "CLAUDE_PEERS_SOCKET", "at most 103 bytes"];
            assert!(words.iter().all(|word| said.contains(*word)), "{said}");
        };
        let mut command = broker.command();
        command.env_remove("CLAUDE_PEERS_SOCKET").envs(environment.clone()).stderr(Stdio::piped());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        named(&String::from_utf8_lossy(&output.stderr));
        let cli = |arguments: &[&str]| {
            let mut command = broker.cli(arguments);
            command.env_remove("CLAUDE_PEERS_SOCKET").envs(environment.clone()).output().unwrap()
        };
        let output = cli(&["status"]);
        assert_eq!(output.status.code(), Some(2));
        named(&String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&cli(&["doctor", "--json"]).stdout).unwrap();
        let finding = report["checks"].as_array().unwrap().iter().find(|finding| finding["check"] == "settings").unwrap();
        assert_eq!(finding["state"], "failed", "{finding}");
        named(finding["what"].as_str().unwrap());
        let mut env: Vec<_> = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        env.push(("CLAUDE_PEERS_SOCKET".to_owned(), String::new()));
        let mut session = Start { broker: &broker, directory: place.path(), session_id: "s", delivery: "", env }.go();
        named(&session.tool_error("list_peers", json!({"scope": "machine"})));
    }
}
