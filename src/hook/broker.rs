//! The broker as a hook reaches it: one connection, no runtime, every wait bounded or ended by the death of the session.
//!
//! The general client ([`crate::client`]) would cost a hook more time and memory than it has.

use super::host::Host;
use crate::{
    paths,
    wire::{API, API_HEADER, Error, PROCESS_SCHEME},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketAddrUnix, SocketType},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt::Write as _,
    io::{self, ErrorKind, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

/// Longest answer that is read: a message of full size, with what JSON may make of it.
const LONGEST: usize = 4 * 1024 * 1024;
/// Most headers of an answer.
const HEADERS: usize = 32;

/// Why the broker gave no answer.
#[derive(Debug)]
pub enum Failed {
    /// It is away, slow, or something else.
    Away,
    /// It said no.
    Refused(Error),
    /// The session has ended meanwhile.
    HostGone,
}

/// A connection to the broker, of a hook that `host` started.
#[derive(Debug)]
pub struct Broker<'a> {
    stream: UnixStream,
    host: Option<&'a Host>,
}

impl From<io::Error> for Failed {
    fn from(_: io::Error) -> Self {
        Self::Away
    }
}

impl<'a> Broker<'a> {
    /// Connects, without waiting: a broker with a full queue counts as away.
    pub fn connect(host: Option<&'a Host>) -> Result<Self, Failed> {
        let path = paths::socket().map_err(|_| Failed::Away)?;
        let address = SocketAddrUnix::new(&path).map_err(io::Error::from)?;
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).map_err(io::Error::from)?;
        rustix::io::ioctl_fionbio(&socket, true).map_err(io::Error::from)?;
        rustix::net::connect(&socket, &address).map_err(io::Error::from)?;
        if !is_ours(&socket, &path)? {
            return Err(Failed::Away);
        }
        Ok(Self { stream: socket.into(), host })
    }

    /// `POST path`, and the answer; by `until`, or without end.
    pub fn post<T: DeserializeOwned>(&mut self, path: &str, body: &impl Serialize, until: Option<Instant>) -> Result<T, Failed> {
        #[derive(serde::Deserialize)]
        struct Refused {
            error: Error,
        }
        let body = serde_json::to_string(body).map_err(io::Error::from)?;
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{API_HEADER}: {API}\r\ncontent-length: {}\r\n",
            body.len()
        );
        if let Some(host) = self.host {
            let _ = write!(request, "authorization: {PROCESS_SCHEME} {}\r\n", host.pid); // writing to a String cannot fail
        }
        request = request + "\r\n" + &body;
        self.write(request.as_bytes(), until)?;
        let (status, body) = self.read(until)?;
        let garbled = |error| Failed::from(io::Error::from(error));
        match status {
            200 => serde_json::from_slice(&body).map_err(garbled),
            _ => Err(Failed::Refused(serde_json::from_slice::<Refused>(&body).map_err(garbled)?.error)),
        }
    }

    fn write(&mut self, mut bytes: &[u8], until: Option<Instant>) -> Result<(), Failed> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::OUT, until)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads one answer: its status and its body.
    fn read(&mut self, until: Option<Instant>) -> Result<(u16, Vec<u8>), Failed> {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            if let Some((status, start, length)) = head(&bytes)?
                && bytes.len() >= start + length
            {
                return Ok((status, bytes[start..start + length].to_vec()));
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Failed::Away),
                Ok(read) => bytes.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::IN, until)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self, flags: PollFlags, until: Option<Instant>) -> Result<(), Failed> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(Failed::Away);
        }
        sleep(Some((&self.stream, flags)), self.host, left)
    }
}

/// Sleeps until the stream is ready, for `span` at the longest, or for a moment after which it is to be asked again.
///
/// # Errors
/// If the session ends.
fn sleep(stream: Option<(&UnixStream, PollFlags)>, host: Option<&Host>, span: Option<Duration>) -> Result<(), Failed> {
    let death = host.and_then(Host::death);
    let mut watched: Vec<PollFd<'_>> =
        stream.iter().map(|(stream, flags)| PollFd::from_borrowed_fd(stream.as_fd(), *flags)).collect();
    watched.extend(death.map(|death| PollFd::from_borrowed_fd(death, PollFlags::IN)));
    let span = span.into_iter().chain(host.and_then(Host::look_again)).min();
    let span = span.map(|span| Timespec { tv_sec: span.as_secs().cast_signed(), tv_nsec: span.subsec_nanos().into() });
    match poll(&mut watched, span.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(io::Error::from(error).into()),
    }
    let died = death.is_some() && watched.last().is_some_and(|death| !death.revents().is_empty());
    let looked_dead = host.is_some_and(|host| host.look_again().is_some() && !host.lives());
    if died || looked_dead { Err(Failed::HostGone) } else { Ok(()) }
}

/// Sleeps for `span`.
///
/// # Errors
/// If the session ends.
pub fn pause(host: &Host, span: Duration) -> Result<(), Failed> {
    let until = Instant::now() + span;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        sleep(None, Some(host), Some(left))?;
    }
}

/// The status of the answer that begins with `bytes`, where its body begins, and how long that is; none if there is more to come.
fn head(bytes: &[u8]) -> Result<Option<(u16, usize, usize)>, Failed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let start = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST => return Ok(None),
        _ => return Err(Failed::Away),
    };
    let find =
        |name: &str| answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value);
    let length = find("content-length").and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
    match (answer.code, length, find(API_HEADER)) {
        (Some(status), Some(length), Some(_)) if length <= LONGEST => Ok(Some((status, start, length))),
        _ => Err(Failed::Away), // whoever this is, it is no broker
    }
}

/// Whether who listens is this user: nobody else is to be told anything.
fn is_ours(socket: &impl AsFd, path: &std::path::Path) -> io::Result<bool> {
    let ours = rustix::process::getuid();
    #[cfg(target_os = "linux")]
    let owner = {
        let _ = path;
        rustix::net::sockopt::socket_peercred(socket)?.uid
    };
    #[cfg(not(target_os = "linux"))]
    let owner = {
        use std::os::unix::fs::MetadataExt;
        let _ = socket;
        rustix::process::Uid::from_raw(std::fs::metadata(path)?.uid())
    };
    Ok(owner == ours)
}
