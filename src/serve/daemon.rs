//! The program `claude-peersd`: its arguments, its start, its end, its exit codes.

use super::{
    app::App,
    config::Config,
    connections::{Callers, Listener, Server},
    containers::{Containers, sockets::reopen},
    idle::Open,
    listen::{self, Given, ListenError},
    log, metrics, notify, router,
};
use crate::{
    broker::Broker,
    db::{self, Extent, Fault, OpenError},
    platform::{
        files, kernel, memory, paths, random,
        settings::{self, InvalidSetting},
    },
    wire::{self, BrokerExit, DatabaseState, ListenerStatus},
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

/// How long requests under way may take after shutdown begins; with the store's last commit this stays under 5 s.
const DRAIN: Duration = Duration::from_secs(3);

/// The claude-peers broker: lets the coding-agent sessions of this user find each other and talk.
///
/// Runs until SIGTERM or SIGINT. Usually started by its sockets through systemd or launchd; run by hand it binds them itself.
#[derive(Debug, Parser)]
#[command(name = "claude-peersd", version, after_help = after_help())]
struct Args {
    /// Check the database, print a report as one line of JSON and exit; changes nothing, safe beside a running broker
    #[arg(long)]
    check_database: bool,
}

fn after_help() -> String {
    let codes: String = BrokerExit::ALL.iter().map(|exit| format!("  {}  {}\n", *exit as u8, exit.meaning())).collect();
    format!(
        "\
Environment:
{}
Exit codes:
{codes}
With --check-database:
  0  the database is sound, or there is none yet
  1  it is damaged, or cannot be read or written
  2  a setting or argument cannot be used
  4  it was written by a newer version",
        settings::help("claude-peersd")
    )
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
    fn exit(&self) -> BrokerExit {
        match self {
            Self::Setting(_) | Self::Database(OpenError::Foreign { .. } | OpenError::NotShared { .. }) => {
                BrokerExit::InvalidSetting
            }
            Self::Listen(ListenError::Living { .. }) | Self::Database(OpenError::InUse { .. }) => BrokerExit::InUse,
            Self::Database(OpenError::TooNew { .. }) => BrokerExit::NewerDatabase,
            _ => BrokerExit::Failure,
        }
    }
}

fn system(doing: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |source| ServeError::System { doing, source }
}

/// Runs the broker until it is told to stop, or checks the database if asked to.
pub fn main() -> ExitCode {
    let ended = match Args::parse().check_database {
        true => check_database().inspect_err(|error| print_error(error)),
        false => start().inspect_err(|error| tracing::error!("{error}")),
    };
    ended.unwrap_or_else(|error| error.exit()).into()
}

fn check_database() -> Result<BrokerExit, ServeError> {
    let report = db::check(&Config::from_env(false)?.database);
    let json = serde_json::to_string(&report).map_err(io::Error::from);
    json.and_then(|json| writeln!(io::stdout(), "{json}")).map_err(system("writing the report"))?;
    Ok(match report.state {
        DatabaseState::Sound | DatabaseState::Missing => BrokerExit::Stopped,
        DatabaseState::TooNew => BrokerExit::NewerDatabase,
        DatabaseState::Foreign
        | DatabaseState::Damaged
        | DatabaseState::NotWritable
        | DatabaseState::NotShared
        | DatabaseState::Unreadable => BrokerExit::Failure,
    })
}

/// For errors before logging starts.
#[expect(clippy::print_stderr, reason = "there is no log")]
fn print_error(error: &dyn std::error::Error) {
    eprintln!("claude-peersd: {error}");
}

fn start() -> Result<BrokerExit, ServeError> {
    // Done before any thread starts: the heaps, the umask (all our files are created as 0600) and the inherited sockets.
    memory::limit_heaps();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    log::start().inspect_err(|error| print_error(error))?;
    let given = listen::given()?;
    let config = Config::from_env(given.comes_back())?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().map_err(system("starting the runtime"))?;
    runtime.block_on(run(config, given))?;
    Ok(BrokerExit::Stopped)
}

async fn run(config: Config, given: Given) -> Result<(), ServeError> {
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    // Where a limit on the size of files is reached, writing fails instead of ending this process.
    let _limit = on(SignalKind::from_raw(libc::SIGXFSZ))?;
    // Opens the database first: of two brokers started together, only the one with its lock touches the sockets.
    let opened = db::open(&config.database, Extent::UnderWay)?;
    let listeners = listen::complete(given, &config.socket, config.port, config.metrics)?;
    let broker = Broker::open(opened.store, config.limits, config.socket.clone()).await?;
    opened.notices.into_iter().for_each(|notice| broker.notice(notice));
    for ListenerStatus { kind, address, origin, problem, .. } in &listeners.status {
        match problem {
            Some(problem) => broker.notice(format!("{kind} socket {address}: {problem}")),
            None => tracing::info!(origin, "listening on {kind} {address}"),
        }
    }
    let (containers, orders) = Containers::new(paths::containers(&config.socket));
    let app = Arc::new(App::new(broker.clone(), listeners.status, containers));
    let mut tasks = JoinSet::new();
    // Everything that `READY=1` promises must be in place before the first answer.
    #[cfg(all(feature = "dbus", target_os = "linux"))]
    if let Some(bus) = super::bus::Bus::join(&app).await {
        tasks.spawn(bus.serve());
    }
    #[cfg(target_os = "macos")]
    tasks.spawn(super::mac::notify(broker.clone()));
    let open = Open::default();
    let token = match listeners.tcp {
        Some(_) if !kernel::can_tell() => Some(machine_token(&config.socket).map_err(system("writing the machine token"))?),
        _ => None,
    };
    let sockets = sockets(listeners.unix, listeners.tcp).map_err(system("listening on the sockets"))?;
    let metrics = listeners.metrics.map(own_tcp).transpose().map_err(system("listening for Prometheus"))?;
    let metrics = metrics.map(|socket| {
        let server = Server::new(metrics::router(app.clone()), broker.clone(), open.clone(), Callers::Anyone);
        Arc::new(server).accept(socket, None)
    });
    let server = Arc::new(Server::new(router::router(app), broker.clone(), open.clone(), Callers::Ours(token)));
    if let Some(span) = config.idle_exit {
        tracing::info!("stops after {} s without a connection", span.as_secs());
    }
    let containers = reopen(paths::containers(&config.socket), orders, &broker);
    tasks.spawn(notify::ready(&broker).await);
    tracing::info!(version = wire::VERSION, database = %config.database.display(), "ready: version {}, database {}", wire::VERSION, config.database.display());
    for socket in sockets {
        tasks.spawn(server.clone().accept(socket, None));
    }
    if let Some(metrics) = metrics {
        tasks.spawn(metrics);
    }
    // The server holds the broker, which closes once nothing else holds it.
    tasks.spawn(containers.serve(server, broker.clone(), open.clone()));
    tasks.spawn(broker.clone().maintain());
    tasks.spawn(notify::watchdog(broker.clone()));
    let mut fault = None;
    tokio::select! {
        met = broker.failed() => {
            tracing::error!("{met}");
            fault = Some(met);
        }
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        () = broker.stopped() => {}
        () = open.idle_for(config.idle_exit) => tracing::info!("nobody is connected: leaving until somebody connects"),
    }
    // A repair may take longer than a manager allows for a stop.
    if fault.is_none() {
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

fn sockets(
    unix: std::os::unix::net::UnixListener,
    tcp: Option<std::net::TcpListener>,
) -> io::Result<impl Iterator<Item = Listener>> {
    unix.set_nonblocking(true)?;
    let unix = Listener::Left(UnixListener::from_std(unix)?);
    let tcp = tcp.map(own_tcp).transpose()?;
    Ok([unix].into_iter().chain(tcp))
}

fn own_tcp(tcp: std::net::TcpListener) -> io::Result<Listener> {
    tcp.set_nonblocking(true)?;
    TcpListener::from_std(tcp).map(Listener::Right)
}

/// For machines whose kernel cannot tell who connects over TCP: a fresh token in a file that only this user can read.
fn machine_token(socket: &Path) -> io::Result<Arc<str>> {
    let path = paths::token(socket);
    files::remove(&path)?;
    let token = random::token(32);
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(token.as_bytes())?;
    Ok(token.into())
}
