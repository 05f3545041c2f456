//! A hook's request to the broker: one connection without a runtime, and a deadline. The general client ([`crate::client`]) would
//! take more time and memory than a hook has.

use crate::{
    platform::{mounted, paths},
    wire::{API, API_HEADER},
};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketType,
    sockopt::{Timeout, set_socket_timeout},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::AsFd,
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::Path,
    time::{Duration, Instant},
};

/// How long connecting, and each write, may take.
const SENDING: Duration = Duration::from_millis(10);

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 1024 * 1024;

/// Writes the request and waits until the broker answers, or until `until`. The broker handles it either way, and the answer does
/// not matter. `authorization` shows which session the hook is of.
pub fn tell(authorization: Option<&str>, path: &str, request: &impl Serialize, until: Instant) -> io::Result<()> {
    send(authorization, path, request, until)?.read(&mut [0; 1024]).map(drop)
}

/// The same for a request whose answer matters.
#[cfg_attr(fuzzing, allow(dead_code, reason = "not all of its callers are fuzzed"))]
pub fn ask<T: DeserializeOwned>(session: &str, path: &str, request: &impl Serialize, until: Instant) -> io::Result<T> {
    let mut answer = Vec::new();
    send(Some(session), path, request, until)?.take(LONGEST).read_to_end(&mut answer)?;
    let is_good = answer.starts_with(b"HTTP/1.1 200 ");
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").filter(|_| is_good);
    Ok(serde_json::from_slice(&answer[body.ok_or(ErrorKind::InvalidData)? + 4..])?)
}

/// Writes the request. The broker closes the connection after its answer.
fn send(authorization: Option<&str>, path: &str, request: &impl Serialize, until: Instant) -> io::Result<UnixStream> {
    let place = paths::socket().map_err(|error| io::Error::new(ErrorKind::NotFound, error))?;
    let body = serde_json::to_string(request)?;
    let session = authorization.map(|session| format!("authorization: {session}\r\n")).unwrap_or_default();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{API_HEADER}: {API}\r\n\
         connection: close\r\n{session}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    // On Linux this bounds connecting, too, which takes long while the broker's queue is full.
    set_socket_timeout(&socket, Timeout::Send, Some(SENDING))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(&place)?)?;
    if !is_ours(&socket, &place)? {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let mut stream = UnixStream::from(socket);
    stream.write_all(request.as_bytes())?;
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    Ok(stream)
}

/// Whether this user's process listens, or in a container the machine's broker. Processes of other users must learn nothing.
fn is_ours(socket: &impl AsFd, path: &Path) -> io::Result<bool> {
    let owner = std::fs::symlink_metadata(path)?.uid();
    if mounted::is_mounted(path, owner) {
        return Ok(true); // in another PID namespace the kernel's answer has no process, which `socket_peercred` cannot express
    }
    #[cfg(target_os = "linux")]
    let owner = rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw();
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
    Ok(owner == rustix::process::getuid().as_raw())
}
