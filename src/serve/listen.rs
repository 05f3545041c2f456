//! The sockets: the two of the protocol, passed by the service manager and identified by name, or bound here; and that of the
//! metrics, if a setting asks for it.
//!
//! Promises: without a Unix socket the broker does not start. A taken TCP port is reported with its holder and does not stop the
//! others. A stale socket file is replaced; a running broker's file never is.

use crate::{
    platform::{files, kernel, process, settings},
    wire::{ListenerStatus, echo, text::printable_line},
};
use rustix::net::{AddressFamily, getsockname};
use std::{
    fs,
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

/// Why a socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    #[error("socket activation gave descriptor {fd} as {name:?}: {problem}; expected a listening {expected}")]
    Activation { fd: RawFd, name: String, problem: &'static str, expected: &'static str },
    #[error("taking the sockets of the service manager: {0}")]
    Manager(io::Error),
    #[error("another broker already serves {path}; use that one, stop it with `claude-peers stop`, or set CLAUDE_PEERS_SOCKET")]
    Living { path: PathBuf },
    #[error("{doing} {path}: {source}; change that, or set CLAUDE_PEERS_SOCKET to another path")]
    File { doing: &'static str, path: PathBuf, source: io::Error },
}

#[derive(Debug)]
pub(super) struct Listeners {
    pub unix: UnixListener,
    /// None if the port is taken.
    pub tcp: Option<TcpListener>,
    /// None if nobody asked for it, or the port is taken.
    pub metrics: Option<TcpListener>,
    /// All, as `status` shows them.
    pub status: Vec<ListenerStatus>,
    /// The socket file that this process made, with its inode, for removal at the end.
    pub made: Option<(PathBuf, u64)>,
}

/// Sockets given by the service manager.
#[derive(Debug, Default)]
pub(super) struct Given {
    unix: Option<UnixListener>,
    tcp: Option<TcpListener>,
}

/// systemd gives a unit's second `ListenStream=` the same name. Its clients would wait for ever.
const AGAIN: &str = "there is another of this name";

impl Given {
    /// Whether the next connection starts a broker after this one has exited.
    pub fn comes_back(&self) -> bool {
        cfg!(target_os = "linux") && self.unix.is_some()
    }
}

/// Takes the sockets that the service manager passed to this process. Call it before any thread starts. Fails if a descriptor has
/// an unknown name or does not match its name. A systemd unit without `FileDescriptorName=` passes the unit's own name.
pub(super) fn given() -> Result<Given, ListenError> {
    let mut given = Given::default();
    for (fd, name) in inherited().map_err(ListenError::Manager)? {
        // SAFETY: the service manager opened this descriptor for this very process, each is given once, and nothing else
        // in this process has taken it: this runs once, at the start, before any thread.
        #[expect(unsafe_code, reason = "a descriptor that was inherited can only be taken over by its number")]
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        #[cfg(not(target_os = "macos"))]
        let listens = rustix::net::sockopt::socket_acceptconn(&socket).unwrap_or(false);
        #[cfg(target_os = "macos")] // Apple's kernel does not tell, and launchd gives no others.
        let listens = true;
        let wrong = |problem, expected| ListenError::Activation { fd, name: name.clone(), problem, expected };
        match name.as_str() {
            "unix" | "claude-peers.socket" => {
                let is_unix = getsockname(&socket).is_ok_and(|address| address.address_family() == AddressFamily::UNIX);
                if !is_unix || !listens {
                    return Err(wrong("it is no listening Unix socket", "Unix socket"));
                }
                if given.unix.replace(socket.into()).is_some() {
                    return Err(wrong(AGAIN, "Unix socket that is the only one"));
                }
            }
            "tcp" | "claude-peers-tcp.socket" => {
                let tcp = TcpListener::from(socket);
                if !listens || !tcp.local_addr().is_ok_and(|address| address.ip().is_loopback()) {
                    return Err(wrong("it does not listen on a loopback address", "TCP socket on 127.0.0.1"));
                }
                if given.tcp.replace(tcp).is_some() {
                    return Err(wrong(AGAIN, "TCP socket that is the only one"));
                }
            }
            _ => return Err(wrong("the name is unknown", "socket named \"unix\" or \"tcp\" (FileDescriptorName=)")),
        }
    }
    Ok(given)
}

/// The sockets that systemd holds for the broker, with their names.
#[cfg(not(target_os = "macos"))]
fn inherited() -> io::Result<Vec<(RawFd, String)>> {
    let take = || {
        if sd_notify::listen_fds()?.len() == 0 {
            return Ok(Vec::new()); // leftover names belong to another process and were inherited from it
        }
        Ok(sd_notify::listen_fds_with_names()?.collect())
    };
    take().map_err(|error: io::Error| {
        let [pid, count, names] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].map(|name| {
            let value = settings::raw(name).unwrap_or_default();
            format!("{name}={:?}", echo(&value.to_string_lossy()))
        });
        io::Error::other(format!("{error} ({pid}, {count}, {names}); unset LISTEN_PID to start without them"))
    })
}

/// The sockets that launchd holds for the broker, by their names in the LaunchAgent's `Sockets` (`admin/manager/launchd.rs`).
#[cfg(target_os = "macos")]
fn inherited() -> io::Result<Vec<(RawFd, String)>> {
    let mut sockets = Vec::new();
    for name in ["unix", "tcp"] {
        match raunch::activate_socket(name) {
            Ok(descriptors) => sockets.extend(descriptors.into_iter().map(|fd| (fd, name.to_owned()))),
            // Started by hand, or by an agent without this socket: the broker binds it, or reports its holder.
            Err(raunch::Error::NotManaged | raunch::Error::NotInPlist) => {}
            Err(error) => return Err(io::Error::other(format!("asking launchd for the socket {name:?}: {error}"))),
        }
    }
    Ok(sockets)
}

/// What is lost if the TCP port of the protocol, or that of the metrics, is taken.
const WITHOUT_TCP: &str = "sessions of the reference system cannot reach this broker, all others use the Unix socket; set \
                           CLAUDE_PEERS_PORT for another port";
const WITHOUT_METRICS: &str = "Prometheus gets no metrics, all else goes on; set CLAUDE_PEERS_METRICS for another port";

/// Binds the sockets that were not passed in. Fails if there can be no Unix socket.
pub(super) fn complete(given: Given, socket: &Path, port: u16, metrics: Option<SocketAddr>) -> Result<Listeners, ListenError> {
    let unix_origin = origin(given.unix.is_some());
    let (unix, made) = match given.unix {
        Some(unix) => (unix, None),
        None => {
            let unix = bind_unix(socket)?;
            (unix, fs::symlink_metadata(socket).ok().map(|meta| (socket.to_owned(), meta.ino())))
        }
    };
    let path = unix.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
    let path = path.unwrap_or_else(|| socket.to_owned());
    let unix_status = ListenerStatus {
        kind: "unix".to_owned(),
        address: path.to_string_lossy().into_owned(),
        listening: true,
        origin: unix_origin,
        problem: shared_folder(&path),
    };
    let (tcp, tcp_status) = bind_tcp("tcp", given.tcp, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), WITHOUT_TCP);
    let (metrics, metrics_status) = metrics.map(|wanted| bind_tcp("metrics", None, wanted, WITHOUT_METRICS)).unzip();
    let status = [unix_status, tcp_status].into_iter().chain(metrics_status).collect();
    Ok(Listeners { unix, tcp, metrics: metrics.flatten(), status, made })
}

fn origin(is_given: bool) -> String {
    if is_given { "service manager" } else { "own" }.to_owned()
}

/// The given socket, or one bound here, with its status; none if the port is taken, with `loss` in the status.
fn bind_tcp(kind: &str, given: Option<TcpListener>, wanted: SocketAddr, loss: &str) -> (Option<TcpListener>, ListenerStatus) {
    let origin = origin(given.is_some());
    let tcp = given.map_or_else(|| TcpListener::bind(wanted), Ok);
    let address = tcp.as_ref().ok().and_then(|tcp| tcp.local_addr().ok()).unwrap_or(wanted);
    let problem = tcp.as_ref().err().map(|error| taken(wanted, error, loss));
    let (kind, address, listening) = (kind.to_owned(), address.to_string(), tcp.is_ok());
    (tcp.ok(), ListenerStatus { kind, address, listening, origin, problem })
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ListenError {
    move |source| ListenError::File { doing, path: path.to_owned(), source }
}

fn bind_unix(path: &Path) -> Result<UnixListener, ListenError> {
    if let Some(folder) = path.parent() {
        prepare_folder(folder)?;
    }
    remove_stale(path)?;
    // The process's umask (0077) keeps others out from the start; a socket needs no execute permission.
    let unix = UnixListener::bind(path).map_err(failed("binding", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed("closing", path))?;
    Ok(unix)
}

/// Makes the socket's folder. A folder of our own is closed to other users.
fn prepare_folder(folder: &Path) -> Result<(), ListenError> {
    if !folder.exists() {
        files::create_private_folder(folder).map_err(failed("making the socket's folder", folder))
    } else if folder.ends_with("claude-peers") || folder.ends_with(".claude-peers") {
        let closed = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
        closed.map_err(failed("closing the socket's folder", folder))
    } else {
        Ok(())
    }
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("looking at", path)(e)),
        Ok(meta) if !meta.file_type().is_socket() => {
            let reason = io::Error::new(ErrorKind::AlreadyExists, "there is a file that is no socket");
            Err(failed("binding", path)(reason))
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => Err(ListenError::Living { path: path.to_owned() }),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed("removing the stale socket", path))
            }
            Err(e) => Err(failed("looking at the existing socket", path)(e)),
        },
    }
}

/// A warning about a folder that others may enter. The socket itself is still 0600, and callers are still checked.
fn shared_folder(socket: &Path) -> Option<String> {
    let folder = socket.parent()?;
    let mode = fs::metadata(folder).ok()?.mode();
    (mode & 0o077 != 0).then(|| {
        format!(
            "its folder {} is open to others (mode {:04o}); only you can connect, but a folder with mode 0700 is better",
            folder.display(),
            mode & 0o7777
        )
    })
}

fn taken(wanted: SocketAddr, error: &io::Error, loss: &str) -> String {
    if error.kind() != ErrorKind::AddrInUse {
        return format!("binding {wanted}: {error}");
    }
    let port = wanted.port();
    let holder = match kernel::listening(port) {
        None => "another program".to_owned(),
        Some(socket) => match kernel::owner(socket.inode) {
            Some(pid) => format!("process {pid} ({})", printable_line(&process::command_line(pid).join(" "))),
            None => format!("a program of user {}", socket.uid),
        },
    };
    format!("port {port} is held by {holder}; {loss}")
}

/// Removes this process's socket file at the end, unless another has replaced it.
pub(super) fn remove(made: Option<(PathBuf, u64)>) {
    if let Some((path, inode)) = made
        && fs::symlink_metadata(&path).is_ok_and(|meta| meta.ino() == inode)
        && let Err(error) = fs::remove_file(&path)
    {
        tracing::warn!(%error, "removing {}: {error}", path.display());
    }
}
