//! The connection to our plugin inside an agent, which puts messages into its session and tells what its model was shown.
//!
//! The plugin listens on a socket that is named after the agent's process. Both sides speak lines of JSON; docs/doors.md describes them.
//! Each frame gets one answer: shown, or why not. If the connection ends first, nothing is known of the frame.

use super::{Fate, socket};
use crate::platform::process;
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::{oneshot, watch},
    task::AbortHandle,
    time::{Instant, timeout},
};
use tokio_stream::StreamExt;
use tokio_util::codec::{FramedRead, LinesCodec};

/// The version of the lines.
const PROTOCOL: u32 = 1;
/// Longest line from the plugin, in bytes.
const LONGEST_LINE: usize = 64 * 1024;
/// How long the plugin may take to say which session there is, and to take a frame.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an idle session may take to begin a turn with a frame.
const IDLE: Duration = Duration::from_secs(30);

/// Ends the connection when dropped.
#[derive(Debug)]
pub struct Plugin {
    connection: Arc<Connection>,
    reading: AbortHandle,
}

/// The connection, and what the plugin has said.
#[derive(Debug)]
struct Connection {
    out: tokio::sync::Mutex<OwnedWriteHalf>,
    progress: watch::Sender<Progress>,
    /// The frames without an answer. Locked for moments only.
    frames: Mutex<HashMap<String, oneshot::Sender<Fate>>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Progress {
    Opening,
    /// The session into which it puts messages, by the agent's own id, and since when that is idle, at least since the last frame.
    Open(Option<String>, Option<Instant>),
    Closed,
}

/// A line from the plugin.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Shown { shown: String },
    Failed { failed: String, reason: Option<String> },
    Session { session: Option<String>, idle: bool },
    Other {},
}

impl Plugin {
    /// Connects to the plugin that listens at `path` in the process `agent` or in a child of it, for a session in `cwd`.
    ///
    /// # Errors
    /// If there is none, another process listens, or it does not answer.
    pub async fn connect(path: &Path, agent: u32, cwd: &Path) -> io::Result<Arc<Self>> {
        let (stream, pid) = socket::connect(path).await?;
        if !process::descends_from(pid, agent) {
            return Err(io::Error::other(format!("process {pid} listens there, not {agent}")));
        }
        let (reader, writer) = stream.into_split();
        let (progress, mut opened) = watch::channel(Progress::Opening);
        let connection = Arc::new(Connection { out: writer.into(), progress, frames: Mutex::default() });
        let reading = tokio::spawn(connection.clone().read(reader)).abort_handle();
        let plugin = Arc::new(Self { connection, reading });
        plugin.say(&json!({"open": {"protocol": PROTOCOL, "cwd": cwd}})).await?;
        let opened = timeout(PATIENCE, opened.wait_for(|state| *state != Progress::Opening)).await;
        match opened.map_err(|_| io::ErrorKind::TimedOut)?.map(|state| state.clone()) {
            Ok(Progress::Open(..)) => Ok(plugin),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The session into which it puts messages; none if there is none, or the plugin is gone.
    pub fn session(&self) -> Option<String> {
        match &*self.connection.progress.borrow() {
            Progress::Open(session, _) => session.clone(),
            _ => None,
        }
    }

    /// Whether its session has been idle for so long that a frame from before is lost.
    pub fn is_idle(&self) -> bool {
        matches!(&*self.connection.progress.borrow(), Progress::Open(_, Some(since)) if since.elapsed() > IDLE)
    }

    pub fn is_closed(&self) -> bool {
        *self.connection.progress.borrow() == Progress::Closed
    }

    /// Resolves when its session is another than `this`, or the plugin is gone.
    pub async fn leaves(&self, this: Option<&str>) {
        let stays = |state: &Progress| matches!(state, Progress::Open(session, _) if session.as_deref() == this);
        _ = self.connection.progress.subscribe().wait_for(|state| !stays(state)).await; // no error: the sender lives as long as this
    }

    /// Hands over a frame for this session, with a title for the person. What is returned waits for its fate.
    ///
    /// # Errors
    /// If it was not handed over.
    pub async fn show(
        &self,
        session: &str,
        frame: String,
        title: &str,
        text: &str,
    ) -> io::Result<impl Future<Output = Fate> + use<>> {
        if self.session().as_deref() != Some(session) {
            return Err(io::Error::other("the plugin has another session now"));
        }
        self.connection.progress.send_modify(|progress| {
            if let Progress::Open(_, Some(since)) = progress {
                *since = Instant::now(); // it may take its time to begin a turn
            }
        });
        let (answer, fate) = oneshot::channel();
        self.connection.frames().insert(frame.clone(), answer);
        let said = self.say(&json!({"show": {"frame": frame, "session": session, "title": title, "text": text}})).await;
        if said.is_err() || self.is_closed() {
            self.connection.frames().remove(&frame);
            return said.and(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Ok(async { fate.await.unwrap_or_else(|_| Err("the plugin is gone".to_owned())) })
    }

    async fn say(&self, line: &serde_json::Value) -> io::Result<()> {
        let say = async { self.connection.out.lock().await.write_all(format!("{line}\n").as_bytes()).await };
        timeout(PATIENCE, say).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Connection {
    /// Follows what the plugin says, to its end.
    async fn read(self: Arc<Self>, reader: OwnedReadHalf) {
        let mut lines = FramedRead::new(reader, LinesCodec::new_with_max_length(LONGEST_LINE));
        while let Some(Ok(line)) = lines.next().await {
            let Ok(line) = serde_json::from_str(&line) else { break };
            match line {
                Line::Shown { shown } => self.answer(&shown, Ok(())),
                Line::Failed { failed, reason } => self.answer(&failed, Err(reason.unwrap_or_default())),
                Line::Session { session, idle } => {
                    self.progress.send_replace(Progress::Open(session, idle.then(Instant::now)));
                }
                Line::Other {} => {}
            }
        }
        self.progress.send_replace(Progress::Closed);
        self.frames().clear();
        _ = self.out.lock().await.shutdown().await; // it may be gone already
    }

    fn answer(&self, frame: &str, fate: Fate) {
        if let Some(waiting) = self.frames().remove(frame) {
            _ = waiting.send(fate); // nobody may wait any more
        }
    }

    fn frames(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Fate>>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncWriteExt, net::UnixListener};

    #[tokio::test]
    async fn idle_session_has_time_for_a_frame() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("door.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let (plugin, accepted) = tokio::join!(Plugin::connect(&path, std::process::id(), folder.path()), async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.write_all(b"{\"session\":\"one\",\"idle\":true}\n").await.expect("a line");
            stream
        });
        let plugin = plugin.expect("a plugin");
        let long_ago = Instant::now().checked_sub(IDLE * 2).expect("the machine runs for longer");
        plugin.connection.progress.send_replace(Progress::Open(Some("one".to_owned()), Some(long_ago)));
        assert!(plugin.is_idle());
        assert!(plugin.show("two", "f".to_owned(), "title", "text").await.is_err(), "it has another session");
        let fate = plugin.show("one", "f".to_owned(), "title", "text").await.expect("handed over");
        assert!(!plugin.is_idle(), "its time begins with the frame");
        drop(accepted);
        assert!(fate.await.is_err());
    }
}
