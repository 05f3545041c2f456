//! Answers that the model gives with its client's own tool.
//!
//! Each frame in the inbox names a socket for an answer, one for each sender. What the client's `SendMessage` writes there goes
//! to that peer as a message of this session. Only this session's client is heard; one frame a connection, bounded in size and
//! time. The tool is told nothing but the end of the connection, so what becomes of an answer stands in the log.

use super::{
    facts::Inbox,
    link::{Link, Up, mends_itself},
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

/// Longest frame: a message of full size, with what JSON may make of it.
const LONGEST: u64 = 2 * 1024 * 1024;
/// How long a frame may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the client's tool is left waiting: it gives up after 5 s.
const TOOL_PATIENCE: Duration = Duration::from_secs(3);
/// Most lines before the frame: the client's tool may show a token first.
const MOST_LINES: usize = 4;
/// Most connections to one socket at a time.
const MOST_CONNECTIONS: usize = 4;

/// The sockets for answers of one session.
pub struct Answers {
    link: Arc<Link>,
    open: HashMap<PathBuf, Open>,
}

struct Open {
    /// The newest message that was shown with this address.
    newest: Arc<Mutex<Option<MessageId>>>,
    listening: JoinHandle<()>,
}

impl Answers {
    /// None yet; answers go through `link`.
    pub fn new(link: Arc<Link>) -> Self {
        Self { link, open: HashMap::new() }
    }

    /// Listens for answers to `sender`; the socket, if there can be one. `newest` is the message that is shown with it.
    pub fn listen(&mut self, up: &Up, inbox: &Inbox, sender: &PeerId, newest: Option<MessageId>) -> Option<PathBuf> {
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
        let to = Recipient { link: self.link.clone(), id: sender.clone(), agent: inbox.agent, newest: newest.clone() };
        let listening = tokio::spawn(accept(listener, Arc::new(to)));
        self.open.insert(path.clone(), Open { newest, listening });
        Some(path)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        for (path, open) in &self.open {
            open.listening.abort();
            // Gone already, or its folder is: nobody answers there any more.
            drop(fs::remove_file(path));
        }
    }
}

/// To whom what comes to a socket goes.
struct Recipient {
    link: Arc<Link>,
    id: PeerId,
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

async fn accept(listener: UnixListener, to: Arc<Recipient>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => return log!("listening for answers to {}: {error}", to.id),
            },
            Some(_) = connections.join_next() => continue,
        };
        let to = to.clone();
        connections.spawn(async move {
            let id = &to.id;
            match timeout(PATIENCE, read(stream, to.agent)).await {
                Err(_) => log!("an answer to {id} did not arrive in time"),
                Ok(Err(error)) => log!("an answer to {id} cannot be read: {error}"),
                Ok(Ok((text, stream))) => {
                    let mut sending = pin!(to.send(text));
                    // The client's tool waits for the end of the connection, but not for long.
                    let early = timeout(TOOL_PATIENCE, &mut sending).await.ok();
                    drop(stream);
                    let sent = match early {
                        Some(sent) => sent,
                        None => sending.await,
                    };
                    match sent {
                        Ok(sent) => log!("an answer through the client's own tool went to {id}: {sent}"),
                        Err(error) => log!("an answer through the client's own tool to {id} was refused: {error}"),
                    }
                }
            }
        });
    }
}

/// Reads one frame of this session's client: its text, and the connection, which ends when it is dropped.
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

impl Recipient {
    async fn send(&self, text: String) -> Result<String> {
        let reply_to = locked(&self.newest).as_ref().map(ToString::to_string);
        let key = Some(random::token(32));
        let send = SendRequest { to: self.id.to_string(), text, reply_to, key, cwd: None };
        loop {
            match self.link.post::<Sent>("/v1/send", &send).await {
                Ok(Sent::One(receipt)) => return Ok(format!("{} {}", receipt.message_id, receipt.state)),
                Ok(Sent::Everyone(_)) => return Ok("accepted".to_owned()),
                Err(error) if mends_itself(&error) => _ = self.link.up().await?, // under the same key, it is one message
                Err(error) => return Err(error),
            }
        }
    }
}
