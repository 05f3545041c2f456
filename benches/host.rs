//! The figures that take a machine with systemd of its own: `cargo bench --bench host` (needs what `cargo test --test host` needs).
//!
//! Cold start: the package, as it is released, on a booted Debian 12. One process in the machine has the service stopped (its
//! sockets stay), connects to the Unix socket, asks `GET /v1/hello` and reads the answer; the time is from just before the
//! connection to the answer, without the stop and a tenth of a second of rest after it. In turns with it, the same is done with the
//! same units around another program: this one, which says that it is ready and answers. What that takes is systemd's own share.
//! Programs and libraries are in memory from the start before, the database is there.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]
#![allow(dead_code, unused_imports, reason = "shares the tests' support code")]

#[path = "../tests/claude/program.rs"]
mod claude;
#[path = "../tests/host/machine.rs"]
mod machine;
#[path = "../tests/host/prepare.rs"]
mod prepare;
#[path = "../tests/suite/support/mod.rs"]
mod support;

use machine::Machine;
use prepare::{Prepared, Release};
use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::AsFd,
        unix::net::{UnixDatagram, UnixListener},
    },
    process::ExitCode,
};

/// Starts of each.
const STARTS: usize = 30;
/// What is started beside the broker: this program.
const ANSWER: &str = "/usr/local/bin/answer";

/// Starts every service that is named, in turns; prints the name and the milliseconds of each start.
const CLIENT: &str = r#"
use IO::Socket::UNIX;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC sleep);
my ($starts, @names) = @ARGV;
for (1 .. $starts) {
    for my $name (@names) {
        system("systemctl", "--user", "stop", "$name.service") == 0 or die "$name does not stop";
        # More starts than a service is allowed in five minutes.
        system("systemctl", "--user", "reset-failed", "$name.service");
        sleep 0.1;
        my $began = clock_gettime(CLOCK_MONOTONIC);
        my $socket = IO::Socket::UNIX->new(Peer => "$ENV{XDG_RUNTIME_DIR}/$name/broker.sock") or die "$name: $!";
        print $socket "GET /v1/hello HTTP/1.1\r\nhost: localhost\r\nclaude-peers-api: 1\r\n\r\n";
        sysread $socket, my $answer, 65536;
        my $time = clock_gettime(CLOCK_MONOTONIC) - $began;
        $answer =~ m{^HTTP/1.1 200} or die "$name: $answer";
        printf "%s %.3f\n", $name, $time * 1000;
    }
}
"#;

fn main() -> ExitCode {
    if std::env::args().next().is_some_and(|name| name == ANSWER) {
        answer();
        return ExitCode::SUCCESS;
    }
    match Prepared::new() {
        Ok(prepared) => {
            println!("| figure | measured |\n|---|---|");
            cold_start(&prepared);
            ExitCode::SUCCESS
        }
        Err(missing) => {
            eprintln!("this takes a Debian of its own: {missing}");
            ExitCode::FAILURE
        }
    }
}

fn cold_start(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    machine.install(&prepared.package).ok();
    fs::copy(std::env::current_exe().unwrap(), machine.path(ANSWER)).unwrap();
    fs::write(machine.path("/usr/local/bin/client"), CLIENT).unwrap();
    let units = "cd /usr/lib/systemd/user && for kind in service socket; do sed \
        -e 's/[a-z-]*-tcp[.]socket//' -e 's:/usr/bin/claude-peersd:/usr/local/bin/answer:' -e 's/claude-peers/answer/g' \
        -e 's/^Type=notify/&\\nStandardInput=socket/' claude-peers.$kind >/etc/systemd/user/answer.$kind || exit; done";
    machine.root(units).ok();
    machine.ada("systemctl --user daemon-reload && systemctl --user start answer.socket").ok();
    // The first start of each is not counted.
    let client = |starts| machine.ada(&format!("perl /usr/local/bin/client {starts} claude-peers answer")).ok();
    client(1);
    let times = client(STARTS);
    for (name, what) in [
        ("claude-peers", "cold start by socket activation: connect → first answer"),
        ("answer", "the same units around a program that only answers (systemd's own share)"),
    ] {
        let own = times.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        let mut own: Vec<f64> = own.collect();
        own.sort_unstable_by(f64::total_cmp);
        assert_eq!(own.len(), STARTS);
        println!("| {what}, median (worst of {STARTS}) | {:.1} ms ({:.1} ms) |", own[STARTS / 2], own[STARTS - 1]);
    }
}

/// The other program: ready at once, answers each connection until it is ended.
fn answer() {
    let listener = UnixListener::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let ready = UnixDatagram::unbound().unwrap();
    ready.send_to(b"READY=1", std::env::var_os("NOTIFY_SOCKET").unwrap()).unwrap();
    for mut stream in listener.incoming().map_while(Result::ok) {
        let mut request = [0; 4096];
        drop(stream.read(&mut request));
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"));
    }
}
