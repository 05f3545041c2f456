//! Accepting connections and serving HTTP on them, until the broker stops.

use super::{
    access::Connection,
    body::{self, Share},
    errors,
    idle::Open,
    refusals, v1,
};
use crate::{
    broker::Broker,
    platform::kernel,
    wire::{API, API_HEADER, Code, Error},
};
use axum::{
    Router,
    extract::Request,
    http::Method,
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{convert::Infallible, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_util::either::Either;
use tower_service::Service;

/// How long the head of a request may take, including the wait for it on a kept connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest request head and connection buffer: the longest path in a query fits.
const MAX_HEAD: usize = 16 * 1024;
/// How long a connection without a request may still send one after shutdown begins.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// How many TCP connections are looked up at once. Each look-up makes the kernel walk through all of the machine's connections.
const LOOKUPS: usize = 2;
/// Pause after a failed accept (too many open files), instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a refused connection stays open, and how many bytes of its request it may send.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
const REFUSED_REQUEST: u64 = 1024 * 1024;
/// How many refused connections on each socket stay open at once.
const REFUSALS: usize = 32;
/// Most open connections on each socket: far more than a user has sessions, and each costs some 20 KiB.
const MOST: u64 = 1_024;
/// Most open connections on the socket of the metrics, which every user can reach.
const SCRAPERS: usize = 8;
/// The sockets of all containers together have as many connections as one of the others, and each of them at most this part of that, so
/// that none takes all.
const PART_OF_CONTAINER: usize = 4;
/// Those who have that many: each of the two sockets, and the containers.
const SHARES: u64 = 3;
/// Open files that are not served connections: the database, its readers, and connections being refused.
const OTHER_FILES: u64 = 128;

type Stream = Either<UnixStream, TcpStream>;

pub(super) type Listener = Either<UnixListener, TcpListener>;

async fn accept_from(listener: &Listener) -> io::Result<Stream> {
    match listener {
        Either::Left(unix) => unix.accept().await.map(|(stream, _)| Either::Left(stream)),
        Either::Right(tcp) => {
            let (stream, _) = tcp.accept().await?;
            // Sends small answers at once. If this option cannot be set, they are only slower.
            drop(stream.set_nodelay(true));
            Ok(Either::Right(stream))
        }
    }
}

/// Who may connect over TCP.
#[derive(Debug)]
pub(super) enum Callers {
    /// This user, by the kernel's word, or by the token that every request must carry if the kernel cannot tell who connects.
    Ours(Option<Arc<str>>),
    /// Every user of this machine.
    Anyone,
}

#[derive(Debug)]
pub(super) struct Server {
    router: Router,
    broker: Arc<Broker>,
    open: Open,
    callers: Callers,
    /// How many connections each socket serves at once.
    places: usize,
    /// The free places of all containers together.
    in_containers: Arc<Semaphore>,
    lookups: Semaphore,
}

impl Server {
    pub fn new(router: Router, broker: Arc<Broker>, open: Open, callers: Callers) -> Self {
        let places = if matches!(callers, Callers::Anyone) { SCRAPERS } else { places() };
        let (in_containers, lookups) = (Arc::new(Semaphore::new(places)), Semaphore::new(LOOKUPS));
        Self { router, broker, open, callers, places, in_containers, lookups }
    }

    /// Accepts connections until the broker stops, then waits for those that are open. `container`: into which the socket is mounted.
    pub async fn accept(self: Arc<Self>, listener: Listener, container: Option<Arc<str>>) {
        let places = if container.is_some() { self.places.div_ceil(PART_OF_CONTAINER) } else { self.places };
        let shared = container.is_some().then(|| self.in_containers.clone());
        let slots: Vec<_> = [Arc::new(Semaphore::new(places))].into_iter().chain(shared).collect();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased; // after shutdown begins, new connections wait in the socket's queue for the next broker
                () = self.broker.stopped() => break,
                accepted = accept_from(&listener) => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match (accepted, free_places(&slots)) {
                (Err(error), _) => {
                    tracing::warn!(%error, "accepting a connection failed: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                (Ok(stream), None) => {
                    let patience = if connections.len() < places + REFUSALS { REFUSAL_TIMEOUT } else { Duration::ZERO };
                    self.broker.refused_request(Code::Busy);
                    connections.spawn(refuse(stream, Code::Busy, "too many connections", patience));
                }
                (Ok(stream), Some(slot)) => {
                    let (server, counted) = (self.clone(), self.open.count());
                    let container = container.clone().map(|name| Connection::Container { name });
                    connections.spawn(async move {
                        let known = if container.is_some() { container } else { server.identify(&stream).await };
                        match known {
                            Some(connection) => server.serve(stream, connection).await,
                            None => {
                                server.broker.refused_request(Code::Forbidden);
                                refuse(stream, Code::Forbidden, "this broker belongs to another user", REFUSAL_TIMEOUT).await;
                            }
                        }
                        drop((slot, counted));
                    });
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// The kernel's facts about a connection; none if it belongs to another user who may not connect. If there is a token, the token
    /// decides.
    async fn identify(&self, stream: &Stream) -> Option<Connection> {
        let ours = rustix::process::geteuid().as_raw();
        match stream {
            Either::Left(unix) => {
                let peer = unix.peer_cred().ok()?;
                if peer.uid() != ours {
                    if refusals::may_log() {
                        tracing::warn!(uid = peer.uid(), "refused a connection of the user {} to the Unix socket", peer.uid());
                    }
                    return None;
                }
                Some(Connection::Unix { pid: peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0) })
            }
            Either::Right(tcp) => {
                let (peer, local) = (tcp.peer_addr().ok()?, tcp.local_addr().ok()?);
                let port = local.port();
                match &self.callers {
                    Callers::Anyone => return Some(Connection::Tcp { inode: None, port, token: None }),
                    Callers::Ours(Some(token)) => return Some(Connection::Tcp { inode: None, port, token: Some(token.clone()) }),
                    Callers::Ours(None) => {}
                }
                let _turn = self.lookups.acquire().await.ok()?;
                let connecting = tokio::task::spawn_blocking(move || kernel::connecting(peer, local)).await.ok().flatten();
                let Some(socket) = connecting.filter(|socket| socket.uid == ours) else {
                    if refusals::may_log() {
                        tracing::warn!(%peer, "refused a TCP connection from {peer}, which is not this user's");
                    }
                    return None;
                };
                Some(Connection::Tcp { inode: Some(socket.inode), port, token: None })
            }
        }
    }

    async fn serve(&self, stream: Stream, connection: Connection) {
        let heard = Notify::new();
        let service = service_fn(|request: hyper::Request<Incoming>| {
            heard.notify_one();
            let mut request = request.map(body::arriving);
            request.extensions_mut().insert(connection.clone());
            answer(self.router.clone(), request)
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let mut served = std::pin::pin!(served);
        let stop = async {
            self.broker.stopped().await;
            // A request may already be on its way on a newly opened connection.
            drop(timeout(FIRST_REQUEST, heard.notified()).await);
        };
        let result = tokio::select! {
            result = served.as_mut() => result,
            () = stop => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "a connection ended early: {error}");
        }
    }
}

/// Answers a request. A request that changes something runs to completion even if its client goes away, so that database and
/// memory agree. Hooks also do not wait for their answers. So the task starts at once, before hyper checks for the end of the
/// connection. It keeps its share of the memory for bodies until it ends. A request that waits ends with its connection.
fn answer(mut router: Router, mut request: Request) -> impl Future<Output = Result<Response, Infallible>> {
    let waits = request.method() != Method::POST || v1::TAKES.contains(&request.uri().path());
    if waits {
        return Either::Left(router.call(request));
    }
    let share = Share::default();
    request.extensions_mut().insert(share.clone());
    let work = router.call(request);
    let task = tokio::spawn(async move {
        let answer = work.await;
        drop(share);
        answer
    });
    Either::Right(async move {
        task.await.unwrap_or_else(|error| {
            Ok(Error::new(Code::Internal, format!("the request was not finished: {error}")).into_response())
        })
    })
}

/// A place in each of these, if all of them have one.
fn free_places(slots: &[Arc<Semaphore>]) -> Option<Vec<OwnedSemaphorePermit>> {
    slots.iter().map(|places| places.clone().try_acquire_owned().ok()).collect()
}

/// Answers without reading the request, so the client cannot delay the answer. Further input is discarded until `patience` runs
/// out; otherwise the client might not see the answer.
async fn refuse(mut stream: Stream, code: Code, what: &str, patience: Duration) {
    let (status, body) = (errors::status(code), serde_json::json!({ "error": Error::new(code, what) }).to_string());
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\
         {API_HEADER}: {API}\r\n\r\n{body}"
    );
    let write = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // The client may have closed its end already, which is no error.
    drop(timeout(REFUSAL_TIMEOUT, write).await);
    drop(timeout(patience, tokio::io::copy(&mut stream.take(REFUSED_REQUEST), &mut tokio::io::sink())).await);
}

/// Raises this process's limit on open files as far as needed and allowed. Returns how many connections each of the two sockets,
/// and those of all containers together, can have at once. At a low limit, surplus clients get an error instead of waiting forever.
fn places() -> usize {
    let wanted = SHARES * MOST + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (now, possible) = (current.unwrap_or(wanted), maximum.unwrap_or(wanted).min(wanted));
    let raised = now < possible
        && setrlimit(Resource::Nofile, Rlimit { current: Some(possible), maximum })
            .inspect_err(|error| tracing::warn!(%error, files = now, "the limit on open files stays as it is: {error}"))
            .is_ok();
    let files = if raised { possible } else { now };
    let each = (files.saturating_sub(OTHER_FILES) / SHARES).clamp(1, MOST);
    usize::try_from(each).unwrap_or(usize::MAX)
}
