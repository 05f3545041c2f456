//! Answers that the model sends with its client's own `SendMessage` tool.
//!
//! Each frame in the inbox names a socket for answers, one per sender. Text that the client's tool writes there goes to that peer
//! as a message of this session. Only this session's client may write. A connection carries one frame, bounded in size and time.
//! The tool learns only that the connection ended, so the log records each answer's outcome.

use super::{
    doors::Inbox,
    link::{AT_ONCE, Link, Registration, mends_itself},
    log,
};
use crate::{
    agents::claude::inbox,
    platform::{files, paths, process, random},
    wire::{MessageId, PeerId, Receipt, Result, SendRequest},
};
use std::{
    collections::HashMap,
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// Longest frame: a message of full size, escaped for JSON.
const LONGEST: u64 = 2 * 1024 * 1024;
/// How long a frame may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time that the client's tool waits for the connection to end. The tool itself gives up after 5 s.
const TOOL_PATIENCE: Duration = Duration::from_secs(3);
/// Most lines up to the frame: the client's tool may write a token first.
const MOST_LINES: usize = 4;
/// Most connections to one socket at a time.
const MOST_CONNECTIONS: usize = 4;

pub struct Answers {
    link: Arc<Link>,
    open: HashMap<PathBuf, Open>,
}

struct Open {
    /// The newest message shown with this address; an answer replies to it.
    newest: watch::Sender<Option<MessageId>>,
    listening: JoinHandle<()>,
}

impl Answers {
    pub fn new(link: Arc<Link>) -> Self {
        Self { link, open: HashMap::new() }
    }

    /// Listens for answers to `sender` and returns the socket, or none on failure or in a container, where the folder is only read. `newest` is the message shown with the socket.
    pub fn listen(&mut self, up: &Registration, inbox: &Inbox, sender: &PeerId, newest: Option<MessageId>) -> Option<PathBuf> {
        if up.me.container.is_some() {
            return None;
        }
        let path = paths::answers(up.client.socket(), &up.me.id, sender);
        if let Some(open) = self.open.get(&path).filter(|open| !open.listening.is_finished() && path.exists()) {
            if newest.is_some() {
                open.newest.send_replace(newest);
            }
            return Some(path);
        }
        let failed = |error: &io::Error| log!("listening for answers at {}: {error}", path.display());
        let listener = bind(&path).inspect_err(failed).ok()?;
        let (newest, shown) = watch::channel(newest);
        let forwarder = Forwarder { link: self.link.clone(), to: sender.clone(), agent: inbox.agent, newest: shown };
        let listening = tokio::spawn(accept(listener, Arc::new(forwarder)));
        self.open.insert(path.clone(), Open { newest, listening });
        Some(path)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        for (path, open) in &self.open {
            open.listening.abort();
            let _ = fs::remove_file(path); // it may be gone already
        }
    }
}

struct Forwarder {
    link: Arc<Link>,
    to: PeerId,
    /// The only process that may write to the socket, with its children.
    agent: u32,
    newest: watch::Receiver<Option<MessageId>>,
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        files::create_private_folder(folder)?;
    }
    let _ = fs::remove_file(path); // if this fails, binding fails too
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

/// Reads one frame from this session's client. Returns its text and the connection, which ends when dropped.
async fn read(stream: UnixStream, agent: u32) -> io::Result<(String, UnixStream)> {
    let peer = stream.peer_cred()?;
    let is_agent = peer.pid().is_some_and(|pid| process::descends_from(pid.cast_unsigned(), agent));
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
        let (text, stream) = match timeout(PATIENCE, read(stream, self.agent)).await.unwrap_or_else(|late| Err(late.into())) {
            Ok(read) => read,
            Err(error) => return log!("an answer to {to} cannot be read: {error}"),
        };
        let mut sending = pin!(self.send(text));
        let early = timeout(TOOL_PATIENCE, &mut sending).await.ok();
        drop(stream); // the tool stops waiting
        match if let Some(sent) = early { sent } else { sending.await } {
            Ok(Receipt { message_id, state, .. }) => {
                log!("an answer through the client's own tool went to {to}: {message_id} {state}")
            }
            Err(error) => log!("an answer through the client's own tool to {to} was refused: {error}"),
        }
    }

    async fn send(&self, text: String) -> Result<Receipt> {
        let reply_to = self.newest.borrow().as_ref().map(ToString::to_string);
        let send = SendRequest { to: self.to.to_string(), text, reply_to, key: Some(random::token(32)), cwd: None, wake: false };
        loop {
            match self.link.post("/v1/send", &send, AT_ONCE).await {
                Err(error) if mends_itself(&error) => _ = self.link.up().await?, // the key prevents a duplicate
                sent => return sent,
            }
        }
    }
}
