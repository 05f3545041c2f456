//! This process's stdin and stdout, read and written without threads where the system can (pipes and sockets).

use serde_json::Value;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{UnixStream, unix::pipe},
};

/// Where lines come from.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// Where lines go. Clones write to the same place, a whole line at a time.
#[derive(Clone)]
pub struct Writer(Arc<tokio::sync::Mutex<Box<dyn AsyncWrite + Send + Unpin>>>);

impl Writer {
    /// Writes to `out`.
    pub fn new(out: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Arc::new(tokio::sync::Mutex::new(Box::new(out))))
    }

    /// Writes `message` as one line. Returns when the system has taken all of it.
    pub async fn write(&self, message: &Value) -> io::Result<()> {
        self.write_line(format!("{message}\n").as_bytes()).await
    }

    /// Writes `line`, which ends in a line break.
    pub async fn write_line(&self, line: &[u8]) -> io::Result<()> {
        let mut out = self.0.lock().await;
        out.write_all(line).await?;
        out.flush().await
    }
}

/// This process's stdin and stdout.
pub fn open() -> (Reader, Writer) {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let reader: Reader = if let Some(pipe) = pipe_options().and_then(|pipe| pipe.open_receiver("/proc/self/fd/0").ok()) {
        Box::new(pipe)
    } else if let Some(socket) = socket(stdin.as_fd()) {
        Box::new(socket)
    } else {
        Box::new(tokio::io::stdin())
    };
    let writer = if let Some(pipe) = pipe_options().and_then(|pipe| pipe.open_sender("/proc/self/fd/1").ok()) {
        Writer::new(pipe)
    } else if let Some(socket) = socket(stdout.as_fd()) {
        Writer::new(socket)
    } else {
        Writer::new(tokio::io::stdout())
    };
    (reader, writer)
}

/// Reopening a pipe through `/proc` gives it flags of its own, so other processes that share it keep a blocking pipe. Linux only.
fn pipe_options() -> Option<pipe::OpenOptions> {
    cfg!(target_os = "linux").then(pipe::OpenOptions::new)
}

fn socket(fd: BorrowedFd<'_>) -> Option<UnixStream> {
    let stat = rustix::fs::fstat(fd).ok()?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_socket() {
        return None;
    }
    let socket = std::os::unix::net::UnixStream::from(fd.try_clone_to_owned().ok()?);
    socket.set_nonblocking(true).ok()?;
    UnixStream::from_std(socket).ok()
}
