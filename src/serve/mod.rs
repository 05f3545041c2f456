//! The daemon's edges: sockets, access, routes, the event stream, the session bus, the service manager, the log.
//!
//! Promises: ready is said only when requests are answered; after a SIGTERM what was accepted is finished and the process
//! ends within five seconds; every connection, wait and body is bounded, so that a bad client costs itself and not others.

mod access;
mod body;
#[cfg(all(feature = "dbus", target_os = "linux"))]
mod bus;
mod config;
mod errors;
mod events;
mod idle;
#[cfg(any(target_os = "macos", test))]
mod launchd;
mod legacy;
pub mod listen;
pub mod log;
mod notify;
mod places;
mod router;
#[cfg(not(target_os = "macos"))]
mod systemd;
mod v1;

pub use config::Config;
pub use idle::IdleExit;
pub use router::openapi;

use crate::{
    broker::Broker,
    db::{self, OpenError},
    platform::{kernel, paths, settings::InvalidSetting},
    wire::{self, BrokerExit, ListenerStatus, random_token},
};
use access::Connection;
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::Method,
    response::{IntoResponse, Response},
};
use futures_util::future::Either;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use idle::Open;
use listen::{Given, ListenError};
use sd_notify::NotifyState;
use std::{
    convert::Infallible, fs, io, io::Write, net::SocketAddr, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc, time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::{Notify, Semaphore},
    task::JoinSet,
};
use tower_service::Service;

/// How long the head of a request may take, an idle connection's next one included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long requests under way may take to finish after the call to stop; with the store's last commit it stays under 5 s.
const DRAIN: Duration = Duration::from_secs(3);
/// How long a connection that has said nothing yet is listened to after the call to stop.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// How many TCP connections are looked up at the same time: each costs the kernel a walk through all of the machine's.
const LOOKUPS: usize = 2;
/// How long to leave a socket alone whose accept failed (too many open files), instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a refusal without a request may take to write.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting cannot be used.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// The database cannot be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// A socket cannot be served.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The broker cannot read its database.
    #[error(transparent)]
    Broker(#[from] wire::Error),
    /// The system refused something.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl ServeError {
    /// The daemon's exit code for this error; stable: 1 failure, 2 unusable setting, 3 another broker is at work, 4 the
    /// database is from a newer version.
    pub fn exit_code(&self) -> BrokerExit {
        match self {
            Self::Setting(_) => BrokerExit::InvalidSetting,
            Self::Listen(ListenError::Living { .. }) | Self::Database(OpenError::InUse { .. }) => BrokerExit::InUse,
            Self::Database(OpenError::TooNew { .. }) => BrokerExit::NewerDatabase,
            _ => BrokerExit::Failure,
        }
    }
}

/// What every handler can reach.
#[derive(Debug)]
pub struct App {
    broker: Arc<Broker>,
    listeners: Vec<ListenerStatus>,
}

/// Serves until told to stop.
///
/// # Errors
/// If it cannot start; see [`ServeError`].
pub async fn run(config: Config, given: Given) -> Result<(), ServeError> {
    let system = |doing| move |source| ServeError::System { doing, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("waiting for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("waiting for SIGINT"))?;
    // The database first: its lock makes sure that of two brokers started together only one touches the sockets.
    let opened = db::open(&config.database)?;
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
    // Before the first request is answered: what the service manager is told as ready is all there.
    #[cfg(all(feature = "dbus", target_os = "linux"))]
    if let Some(bus) = bus::Bus::join(&app).await {
        tasks.spawn(bus.serve());
    }
    let router = router::router(app);
    let (places, open) = (places::each(), Open::default());
    listen::nonblocking(&listeners.unix).map_err(system("preparing the Unix socket"))?;
    let unix = UnixListener::from_std(listeners.unix).map_err(system("listening on the Unix socket"))?;
    let tcp = match listeners.tcp {
        None => None,
        Some(tcp) => {
            listen::nonblocking(&tcp).map_err(system("preparing the TCP socket"))?;
            let tcp = TcpListener::from_std(tcp).map_err(system("listening on the TCP socket"))?;
            Some((tcp, machine_token(&config.socket).map_err(system("writing the machine token"))?))
        }
    };
    let idle_exit = config.idle_exit.span(comes_back);
    if let Some(span) = idle_exit {
        tracing::info!("leaves after {} s without a connection", span.as_secs());
    }
    // Before the first answer: whoever has one may rely on the service manager's word as well.
    tasks.spawn(notify::ready(&broker));
    tracing::info!(version = wire::VERSION, database = %config.database.display(), "ready");
    tasks.spawn(accept_unix(unix, places, open.clone(), router.clone(), broker.clone()));
    match tcp {
        Some((tcp, token)) => drop(tasks.spawn(accept_tcp(tcp, places, open.clone(), router, broker.clone(), token))),
        // It holds the broker, which is closed once nobody does.
        None => drop(router),
    }
    tasks.spawn(broker.clone().keep_house());
    tasks.spawn(notify::watchdog(broker.clone()));

    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        () = broker.stopped() => {}
        () = idle(&open, idle_exit) => tracing::info!("nobody is connected: leaving until somebody connects"),
    }
    notify::say(&[NotifyState::Stopping, NotifyState::Status("finishing what was accepted")]);
    listen::remove(listeners.made);
    broker.stop();
    let drained = tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("some requests did not finish in time and were cut off");
        tasks.shutdown().await;
    }
    broker.close();
    tracing::info!("stopped");
    Ok(())
}

/// Resolves when it is time to leave; never where that is not wanted.
async fn idle(open: &Open, span: Option<Duration>) {
    match span {
        Some(span) => open.idle_for(span).await,
        None => std::future::pending().await,
    }
}

async fn accept_unix(listener: UnixListener, places: usize, open: Open, router: Router, broker: Arc<Broker>) {
    let ours = rustix::process::geteuid().as_raw();
    let slots = Arc::new(Semaphore::new(places));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased; // after the call to stop, whoever connects waits in the socket's queue for the next broker
            () = broker.stopped() => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, cred) = match accepted.and_then(|(stream, _)| stream.peer_cred().map(|cred| (stream, cred))) {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        if cred.uid() != ours {
            tracing::warn!(uid = cred.uid(), "another user connected to the Unix socket: refused");
            connections.spawn(refuse(stream, Refused::OtherUser));
        } else if let Ok(slot) = slots.clone().try_acquire_owned() {
            let pid = cred.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
            let (counted, router, broker) = (open.count(), router.clone(), broker.clone());
            connections.spawn(async move {
                serve(stream, Connection::Unix { pid }, router, broker).await;
                drop((slot, counted));
            });
        } else {
            connections.spawn(refuse(stream, Refused::Busy));
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept_tcp(
    listener: TcpListener,
    places: usize,
    open: Open,
    router: Router,
    broker: Arc<Broker>,
    token: Option<Arc<str>>,
) {
    let (slots, lookups) = (Arc::new(Semaphore::new(places)), Arc::new(Semaphore::new(LOOKUPS)));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased; // after the call to stop, whoever connects waits in the socket's queue for the next broker
            () = broker.stopped() => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, peer, local) =
            match accepted.and_then(|(stream, peer)| stream.local_addr().map(|local| (stream, peer, local))) {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            connections.spawn(refuse(stream, Refused::Busy));
            continue;
        };
        let counted = open.count();
        let (router, broker, token, lookups) = (router.clone(), broker.clone(), token.clone(), lookups.clone());
        connections.spawn(async move {
            // Small answers go out at once; a failure to say so costs only time.
            drop(stream.set_nodelay(true));
            match identify(peer, local, token, &lookups).await {
                Some(connection) => serve(stream, connection, router, broker).await,
                None => refuse(stream, Refused::OtherUser).await,
            }
            drop((slot, counted));
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// What the kernel says of a TCP connection; none if it is not this user's. With a token it is the token that decides.
async fn identify(peer: SocketAddr, local: SocketAddr, token: Option<Arc<str>>, lookups: &Semaphore) -> Option<Connection> {
    let port = local.port();
    if token.is_some() {
        return Some(Connection::Tcp { inode: None, port, token });
    }
    let _turn = lookups.acquire().await.ok()?;
    let look = tokio::task::spawn_blocking(move || access::connecting_socket(peer, local));
    let inode = look.await.ok().flatten();
    if inode.is_none() {
        tracing::warn!(%peer, "a TCP connection that is not this user's: refused");
    }
    Some(Connection::Tcp { inode: Some(inode?), port, token: None })
}

async fn serve<S>(stream: S, connection: Connection, router: Router, broker: Arc<Broker>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let heard = Arc::new(Notify::new());
    let first = heard.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        heard.notify_one();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(connection.clone());
        answer(router.clone(), request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = broker.stopped() => {
            // Whoever has just connected is still heard: a request may be on its way.
            let heard = tokio::time::timeout(FIRST_REQUEST, first.notified());
            tokio::select! {
                result = served.as_mut() => result,
                _ = heard => {
                    served.as_mut().graceful_shutdown();
                    served.await
                }
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Answers a request. One that changes something runs to completion even if its client goes away: the database and the broker's
/// memory must not part, and a hook does not wait for its answer. So its task starts at once, before hyper looks for the end of the
/// connection. A request that waits ends with its connection.
fn answer(mut router: Router, request: Request) -> impl Future<Output = Result<Response, Infallible>> {
    let waits = request.method() != Method::POST || request.uri().path() == v1::TAKE;
    let path = request.uri().path().to_owned();
    let work = router.call(request);
    let work = if waits { Either::Left(work) } else { Either::Right(tokio::spawn(work)) };
    async move {
        match work {
            Either::Left(work) => work.await,
            Either::Right(task) => task.await.unwrap_or_else(|error| {
                let error = wire::Error::new(wire::Code::Internal, format!("the request was not finished: {error}"));
                Ok(errors::Refusal::on(&path, error).into_response())
            }),
        }
    }
}

/// Why a connection is not served at all.
#[derive(Debug, Clone, Copy)]
enum Refused {
    OtherUser,
    Busy,
}

/// Answers without reading: whoever is not to be served gets no say in how long this takes.
async fn refuse(mut stream: impl AsyncWrite + Unpin, why: Refused) {
    let (status, code, message) = match why {
        Refused::OtherUser => ("403 Forbidden", "forbidden", "this broker belongs to another user"),
        Refused::Busy => ("503 Service Unavailable", "busy", "too many connections"),
    };
    let body = format!(r#"{{"error":{{"code":"{code}","message":"{message}"}}}}"#);
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    let answer = format!("{head}{}: {}\r\n\r\n{body}", wire::API_HEADER, wire::API);
    let write = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // It may be gone already; nothing is owed to it.
    drop(tokio::time::timeout(REFUSAL_TIMEOUT, write).await);
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "accepting a connection failed");
    tokio::time::sleep(ACCEPT_PAUSE).await;
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
    let token = random_token(32);
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(token.as_bytes())?;
    Ok(Some(token.into()))
}
