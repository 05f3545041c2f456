//! The broker as the hook reaches it: one connection, one request, no runtime.
//!
//! The general client ([`crate::client`]) would cost more time and memory than a hook has. Nothing waits past a given moment.

use crate::{
    platform::paths,
    wire::{API, API_HEADER, Hook, PROCESS_SCHEME, SESSION_SCHEME},
};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketType,
    sockopt::{Timeout, set_socket_timeout},
};
use std::{
    io::{self, ErrorKind, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

/// How long connecting, and each write, may take.
const SENDING: Duration = Duration::from_millis(10);

/// How a hook shows whose it is.
#[derive(Debug)]
pub enum Session {
    /// By the token that its client gives to what it starts. The broker knows it also once the hook has ended.
    Token(String),
    /// By the process that started it, as clients without an inbox have it.
    Process(u32),
}

/// Tells the broker what the hook of a session knows, and waits until it answers, or until `until`: what is written is heard, also
/// if nobody waits for the answer. What that is makes no difference here.
pub fn tell(of: Option<&Session>, hook: &Hook, until: Instant) -> io::Result<()> {
    let path = paths::socket().map_err(|error| io::Error::new(ErrorKind::NotFound, error))?;
    let request = request(of, hook)?;
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    // On Linux it bounds connecting, too: a broker whose queue is full makes others wait. It is tried however late it is.
    set_socket_timeout(&socket, Timeout::Send, Some(SENDING))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(&path)?)?;
    if !is_ours(&socket, &path)? {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let mut stream = UnixStream::from(socket);
    stream.write_all(request.as_bytes())?;
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    stream.read(&mut [0; 1024]).map(drop)
}

fn request(of: Option<&Session>, hook: &Hook) -> io::Result<String> {
    let body = serde_json::to_string(hook)?;
    let session = match of {
        Some(Session::Token(token)) => format!("authorization: {SESSION_SCHEME} {token}\r\n"),
        Some(Session::Process(pid)) => format!("authorization: {PROCESS_SCHEME} {pid}\r\n"),
        None => String::new(),
    };
    Ok(format!(
        "POST /v1/hook HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{API_HEADER}: {API}\r\n\
         {session}content-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// Whether this user's process listens: nobody else is to be told anything.
fn is_ours(socket: &impl AsFd, path: &Path) -> io::Result<bool> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_names_the_process_and_holds_what_is_known() {
        let hook = Hook {
            event: "UserPromptSubmit".to_owned(),
            problem: None,
            session_id: Some("s-1".to_owned()),
            cwd: None,
            permission_mode: Some("plan".to_owned()),
            messages: vec!["m12-abcdef".parse().expect("an id")],
        };
        let text = request(Some(&Session::Process(7)), &hook).expect("written");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("POST /v1/hook HTTP/1.1\r\n") && head.contains("\r\nauthorization: Process 7\r\n"), "{head}");
        assert!(head.ends_with(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        let expected = r#"{"event":"UserPromptSubmit","sessionId":"s-1","permissionMode":"plan","messages":["m12-abcdef"]}"#;
        assert_eq!(body, expected);
        let text = request(Some(&Session::Token("abc".to_owned())), &hook).expect("written");
        assert!(text.contains("\r\nauthorization: Session abc\r\n"), "{text}");
        assert!(!request(None, &hook).expect("written").contains("authorization"));
    }
}
