//! Answers that the model gives with its client's own `SendMessage` tool.
//!
//! Each frame in the inbox names a socket for answers, one per sender. What the client's tool writes there goes to that peer as a
//! message of this session. Only this session's client may write; a connection carries one frame, bounded in size and time. The
//! tool learns only that the connection ended, so the log says what became of an answer.

use super::{
    facts::Inbox,
    link::{AT_ONCE, Link, Registration, mends_itself},
    locked, log,
};
use crate::{
    agents::claude::inbox,
    platform::random,
    wire::{MessageId, PeerId, Result, SendRequest, Sent},
};
use std::{
    collections::HashMap,
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::{UnixListener, UnixStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// Longest frame: a message of full size, escaped for JSON.
const LONGEST: u64 = 2 * 1024 * 1024;
/// How long a frame may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the client's tool waits for the end of the connection at most. It would give up after 5 s.
const TOOL_PATIENCE: Duration = Duration::from_secs(3);
/// Most lines up to the frame: the client's tool may write a token first.
const MOST_LINES: usize = 4;
/// Most connections to one socket at a time.
const MOST_CONNECTIONS: usize = 4;

/// The sockets for answers of one session.
pub struct Answers {
    link: Arc<Link>,
    open: HashMap<PathBuf, Open>,
}

struct Open {
    /// The newest message shown with this address: an answer replies to it.
    newest: Arc<Mutex<Option<MessageId>>>,
    listening: JoinHandle<()>,
}

impl Answers {
    /// No sockets yet; answers go out over `link`.
    pub fn new(link: Arc<Link>) -> Self {
        Self { link, open: HashMap::new() }
    }

    /// Listens for answers to `sender` and gives the socket, unless that fails. `newest` is the message that is shown with it.
    pub fn listen(&mut self, up: &Registration, inbox: &Inbox, sender: &PeerId, newest: Option<MessageId>) -> Option<PathBuf> {
        let path = crate::platform::paths::answers(up.socket(), &up.me.id, sender);
        if let Some(open) = self.open.get(&path).filter(|open| !open.listening.is_finished() && path.exists()) {
            if newest.is_some() {
                *locked(&open.newest) = newest;
            }
            return Some(path);
        }
        let listener = match bind(&path) {
            Ok(listener) => listener,
            Err(error) => {
                log!("listening for answers at {}: {error}", path.display());
                return None;
            }
        };
        let newest = Arc::new(Mutex::new(newest));
        let to = Forwarder { link: self.link.clone(), to: sender.clone(), agent: inbox.agent, newest: newest.clone() };
        let listening = tokio::spawn(accept(listener, Arc::new(to)));
        self.open.insert(path.clone(), Open { newest, listening });
        Some(path)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        for (path, open) in &self.open {
            open.listening.abort();
            let _ = fs::remove_file(path); // already gone is as good
        }
    }
}

/// Forwards what comes to one socket.
struct Forwarder {
    link: Arc<Link>,
    to: PeerId,
    /// The only process that may write to the socket, with its children.
    agent: u32,
    newest: Arc<Mutex<Option<MessageId>>>,
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, forwarder: Arc<Forwarder>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => return log!("listening for answers to {}: {error}", forwarder.to),
            },
            Some(_) = connections.join_next() => continue,
        };
        let forwarder = forwarder.clone();
        connections.spawn(async move { forwarder.serve(stream).await });
    }
}

/// Reads one frame from this session's client; gives its text and the connection, which ends when it is dropped.
async fn read(stream: UnixStream, agent: u32) -> io::Result<(String, UnixStream)> {
    let peer = stream.peer_cred()?;
    let is_agent =
        peer.pid().and_then(|pid| u32::try_from(pid).ok()).is_some_and(|pid| crate::platform::process::descends_from(pid, agent));
    if peer.uid() != rustix::process::getuid().as_raw() || !is_agent {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not from this session's client"));
    }
    let mut lines = BufReader::new(stream).take(LONGEST);
    for _ in 0..MOST_LINES {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line).await? == 0 {
            break;
        }
        if let Some(text) = inbox::answer(&line) {
            return Ok((text, lines.into_inner().into_inner()));
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no message"))
}

impl Forwarder {
    async fn serve(&self, stream: UnixStream) {
        let to = &self.to;
        let (text, stream) = match timeout(PATIENCE, read(stream, self.agent)).await {
            Err(_) => return log!("an answer to {to} did not arrive in time"),
            Ok(Err(error)) => return log!("an answer to {to} cannot be read: {error}"),
            Ok(Ok(read)) => read,
        };
        let mut sending = pin!(self.send(text));
        let early = timeout(TOOL_PATIENCE, &mut sending).await.ok();
        drop(stream); // ends the tool's wait
        let sent = match early {
            Some(sent) => sent,
            None => sending.await,
        };
        match sent {
            Ok(sent) => log!("an answer through the client's own tool went to {to}: {sent}"),
            Err(error) => log!("an answer through the client's own tool to {to} was refused: {error}"),
        }
    }

    async fn send(&self, text: String) -> Result<String> {
        let reply_to = locked(&self.newest).as_ref().map(ToString::to_string);
        let send = SendRequest { to: self.to.to_string(), text, reply_to, key: Some(random::token(32)), cwd: None };
        loop {
            match self.link.post::<Sent>("/v1/send", &send, AT_ONCE).await {
                Ok(Sent::One(receipt)) => return Ok(format!("{} {}", receipt.message_id, receipt.state)),
                Ok(Sent::Everyone(_)) => return Ok("accepted".to_owned()),
                Err(error) if mends_itself(&error) => _ = self.link.up().await?, // the key makes it one message
                Err(error) => return Err(error),
            }
        }
    }
}
