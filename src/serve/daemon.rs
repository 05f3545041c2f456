//! The program `claude-peersd`: its arguments, its start, its end, its exit codes.

use super::{
    app::App,
    config::Config,
    connections::{Listener, Server},
    idle::Open,
    listen::{self, Given, ListenError},
    log, notify, router,
};
use crate::{
    broker::Broker,
    db::{self, Extent, Fault, OpenError},
    platform::{kernel, paths, random, settings::InvalidSetting},
    wire::{self, DatabaseState},
};
use clap::Parser;
use sd_notify::NotifyState;
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};

/// How long requests under way may take to finish after the call to stop; with the store's last commit it stays under 5 s.
const DRAIN: Duration = Duration::from_secs(3);

/// The claude-peers broker: lets the coding-agent sessions of this user find each other and talk.
///
/// Runs until SIGTERM or SIGINT. Usually started by its sockets through systemd or launchd; run by hand it binds them itself.
#[derive(Debug, Parser)]
#[command(
    name = "claude-peersd",
    version,
    after_help = "\
Environment:
  CLAUDE_PEERS_SOCKET         Unix socket [$XDG_RUNTIME_DIR/claude-peers/broker.sock]
  CLAUDE_PEERS_PORT           TCP port on 127.0.0.1, 0 for any free one [7899]
  CLAUDE_PEERS_DB             database [~/.claude-peers.db]
  CLAUDE_PEERS_LOG            error, warn, info, debug or trace [info]
  CLAUDE_PEERS_RATE_LIMIT     messages a minute per sender, 0: rate and repeats unlimited [120]
  CLAUDE_PEERS_RATE_BURST     messages at once per sender [30]
  CLAUDE_PEERS_REPEAT_LIMIT   the same text to the same peer, times a minute [3]
  CLAUDE_PEERS_TEXT_LIMIT     bytes of a message [262144]
  CLAUDE_PEERS_SUMMARY_LIMIT  characters of a summary [1000]
  CLAUDE_PEERS_WAITING_LIMIT  messages waiting for one recipient [1000]
  CLAUDE_PEERS_EXPIRY         how long undelivered mail waits [7d]
  CLAUDE_PEERS_IDLE_EXIT      how long to stay without connections, or off [10m under systemd]
  CLAUDE_PEERS_HISTORY        how long ended messages are kept [30d]
  DBUS_SESSION_BUS_ADDRESS    session bus [$XDG_RUNTIME_DIR/bus, if it is there]

Exit codes:
  0  stopped as asked
  1  failure
  2  a setting or argument cannot be used
  3  another broker is at work on this socket or database
  4  the database was written by a newer version

With --check-database:
  0  the database is sound, or there is none yet
  1  it is damaged, or cannot be read or written
  2  a setting or argument cannot be used
  4  it was written by a newer version"
)]
struct Args {
    /// Check the database, print a report as one line of JSON and exit; changes nothing, safe beside a running broker
    #[arg(long)]
    check_database: bool,
}

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    #[error(transparent)]
    Database(#[from] OpenError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("stopped because of the database; start the broker again")]
    Fault,
    #[error(transparent)]
    Broker(#[from] wire::Error),
    #[error("{doing}: {source}")]
    System { doing: &'static str, source: io::Error },
}

impl ServeError {
    /// The stable exit code: 1 failure, 2 unusable setting, 3 another broker is at work, 4 the database is from a newer version.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Setting(_) | Self::Database(OpenError::Foreign { .. }) => 2,
            Self::Listen(ListenError::Living { .. }) | Self::Database(OpenError::InUse { .. }) => 3,
            Self::Database(OpenError::TooNew { .. }) => 4,
            _ => 1,
        }
    }
}

fn system(doing: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |source| ServeError::System { doing, source }
}

/// Runs the broker until it is told to stop, or checks the database if asked to.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if args.check_database {
        return check_database();
    }
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn check_database() -> ExitCode {
    let path = match Config::from_env() {
        Ok(config) => config.database,
        Err(error) => {
            print_error(&error);
            return ExitCode::from(2);
        }
    };
    let report = db::check(&path);
    let written = serde_json::to_string(&report).map_err(io::Error::from).and_then(|json| writeln!(io::stdout(), "{json}"));
    if let Err(error) = written {
        print_error(&error);
        return ExitCode::FAILURE;
    }
    match report.state {
        DatabaseState::Sound | DatabaseState::Missing => ExitCode::SUCCESS,
        DatabaseState::TooNew => ExitCode::from(4),
        DatabaseState::Foreign | DatabaseState::Damaged | DatabaseState::NotWritable | DatabaseState::Unreadable => {
            ExitCode::FAILURE
        }
    }
}

/// For errors where there is no log.
#[expect(clippy::print_stderr, reason = "there is no log")]
fn print_error(error: &dyn std::error::Error) {
    eprintln!("claude-peersd: {error}");
}

fn start() -> Result<(), ServeError> {
    // Before any thread starts: the umask (every file of ours is 0600 from its first moment) and the inherited sockets.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    log::start().inspect_err(|error| print_error(error))?;
    let given = listen::given()?;
    let config = Config::from_env()?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().map_err(system("starting the runtime"))?;
    runtime.block_on(run(config, given))
}

async fn run(config: Config, given: Given) -> Result<(), ServeError> {
    let (terminate, interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    // The database first: its lock makes sure that of two brokers started together only one touches the sockets.
    let opened = db::open(&config.database, Extent::UnderWay)?;
    let comes_back = given.comes_back();
    let listeners = listen::complete(given, &config.socket, config.port)?;
    let broker = Broker::open(opened.store, config.limits, config.socket.clone()).await?;
    opened.notices.into_iter().for_each(|notice| broker.notice(notice));
    for listener in &listeners.status {
        match &listener.problem {
            Some(problem) => broker.notice(format!("{} socket {}: {problem}", listener.kind, listener.address)),
            None => tracing::info!(origin = listener.origin, "listening on {} {}", listener.kind, listener.address),
        }
    }
    let app = Arc::new(App { broker: broker.clone(), listeners: listeners.status });
    let mut tasks = JoinSet::new();
    // Before the first answer: all that `READY=1` promises is there.
    #[cfg(all(feature = "dbus", target_os = "linux"))]
    if let Some(bus) = super::bus::Bus::join(&app).await {
        tasks.spawn(bus.serve());
    }
    let open = Open::default();
    let sockets = sockets(listeners.unix, listeners.tcp, &config.socket)?;
    let server = Arc::new(Server::new(router::router(app), broker.clone(), open.clone()));
    let idle_exit = config.idle_exit.span(comes_back);
    if let Some(span) = idle_exit {
        tracing::info!("leaves after {} s without a connection", span.as_secs());
    }
    tasks.spawn(notify::ready(&broker).await);
    tracing::info!(version = wire::VERSION, database = %config.database.display(), "ready");
    for socket in sockets {
        tasks.spawn(server.clone().accept(socket));
    }
    drop(server); // it holds the broker, which is closed once nothing else does
    tasks.spawn(broker.clone().maintain());
    tasks.spawn(notify::watchdog(broker.clone()));
    let mut fault = None;
    tokio::select! {
        met = broker.failed() => {
            tracing::error!("{met}");
            fault = Some(met);
        }
        () = received(terminate) => tracing::info!("SIGTERM: stopping"),
        () = received(interrupt) => tracing::info!("SIGINT: stopping"),
        () = broker.stopped() => {}
        () = open.idle_for(idle_exit) => tracing::info!("nobody is connected: leaving until somebody connects"),
    }
    if fault.is_none() {
        // repairing may take longer than a manager lets a service stop
        notify::say(&[NotifyState::Stopping, NotifyState::Status("finishing what was accepted")]);
    }
    listen::remove(listeners.made);
    broker.stop();
    let drained = tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("some requests did not finish in time and were cut off");
        tasks.shutdown().await;
    }
    broker.close();
    if let Some(fault) = fault {
        if matches!(fault, Fault::Damaged(_)) {
            db::open(&config.database, Extent::Whole)?.store.close(); // so that the next start finds it sound
        }
        return Err(ServeError::Fault);
    }
    tracing::info!("stopped");
    Ok(())
}

fn on(kind: SignalKind) -> Result<Signal, ServeError> {
    signal(kind).map_err(system("waiting for signals"))
}

async fn received(mut signal: Signal) {
    signal.recv().await;
}

fn sockets(
    unix: std::os::unix::net::UnixListener,
    tcp: Option<std::net::TcpListener>,
    path: &Path,
) -> Result<Vec<Listener>, ServeError> {
    unix.set_nonblocking(true).map_err(system("preparing the Unix socket"))?;
    let mut sockets = vec![Listener::Unix(UnixListener::from_std(unix).map_err(system("listening on the Unix socket"))?)];
    if let Some(tcp) = tcp {
        tcp.set_nonblocking(true).map_err(system("preparing the TCP socket"))?;
        let tcp = TcpListener::from_std(tcp).map_err(system("listening on the TCP socket"))?;
        sockets.push(Listener::Tcp(tcp, machine_token(path).map_err(system("writing the machine token"))?));
    }
    Ok(sockets)
}

/// Where the kernel cannot tell who connects over TCP: a fresh token in a file that only this user can read.
fn machine_token(socket: &Path) -> io::Result<Option<Arc<str>>> {
    if kernel::can_tell() {
        return Ok(None);
    }
    let path = paths::token(socket);
    match fs::remove_file(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    let token = random::token(32);
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(token.as_bytes())?;
    Ok(Some(token.into()))
}
