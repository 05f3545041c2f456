//! This process's stdin and stdout, read and written without threads where the system can (pipes and sockets).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{UnixStream, unix::pipe},
    sync::Mutex,
};

pub type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// Where lines go. Clones write to the same place, a whole line at a time.
#[derive(Clone)]
pub struct Writer(Arc<Mutex<Box<dyn AsyncWrite + Send + Unpin>>>);

impl Writer {
    pub fn new(out: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(out))))
    }

    /// Writes `line`, which ends in a line break. Returns once the system has taken all of it.
    pub async fn write_line(&self, line: &[u8]) -> io::Result<()> {
        let mut out = self.0.lock().await;
        out.write_all(line).await?;
        out.flush().await
    }

    /// Waits until the client has taken every line.
    pub async fn taken(&self) {
        drop(self.0.lock().await);
    }
}

pub fn open() -> (Reader, Writer) {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    // Reopening a pipe through `/proc` (Linux only) gives it its own flags, so processes that share the pipe keep it blocking.
    let reader: Reader = if let Ok(pipe) = pipe::OpenOptions::new().open_receiver("/proc/self/fd/0") {
        Box::new(pipe)
    } else if let Some(socket) = socket(stdin.as_fd()) {
        Box::new(socket)
    } else {
        Box::new(tokio::io::stdin())
    };
    let writer = if let Ok(pipe) = pipe::OpenOptions::new().open_sender("/proc/self/fd/1") {
        Writer::new(pipe)
    } else if let Some(socket) = socket(stdout.as_fd()) {
        Writer::new(socket)
    } else {
        Writer::new(tokio::io::stdout())
    };
    (reader, writer)
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
