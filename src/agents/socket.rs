//! Connections to Unix sockets of coding agents and of our plugins in them.

use rustix::fs::FileType;
use std::{fs, io, os::unix::fs::MetadataExt, path::Path, time::Duration};
use tokio::{net::UnixStream, time::timeout};

/// How long connecting may take. An agent accepts at once, whatever its model does.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to the socket at `path`; gives the stream and the process at its other end.
///
/// # Errors
/// If there is none, or another user could be behind it: it must be a socket, not a link, that only this user may write, and a process of
/// this user must listen.
pub async fn connect(path: &Path) -> io::Result<(UnixStream, u32)> {
    let refused = |what: &str| io::Error::new(io::ErrorKind::PermissionDenied, what);
    let meta = fs::symlink_metadata(path)?;
    let ours = rustix::process::getuid().as_raw();
    if !FileType::from_raw_mode(meta.mode()).is_socket() {
        return Err(refused("is not a socket"));
    }
    if meta.uid() != ours {
        return Err(refused("belongs to another user"));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(refused("may be written by other users"));
    }
    let stream = timeout(PATIENCE, UnixStream::connect(path)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let peer = stream.peer_cred()?;
    if peer.uid() != ours {
        return Err(refused("another user's process listens there"));
    }
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    Ok((stream, pid.ok_or_else(|| refused("cannot find out which process listens there"))?))
}

/// Connects to the socket at `path`, where the process `agent` listens, and writes `text` as all that it says.
///
/// # Errors
/// If another process listens there, or not all of the text was written.
pub async fn post(path: &Path, agent: u32, text: &str) -> io::Result<()> {
    use tokio::io::AsyncWriteExt;
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let (mut stream, pid) = connect(path).await.map_err(named)?;
    if pid != agent {
        return Err(io::Error::other(format!("{}: process {pid} listens there, not {agent}", path.display())));
    }
    let write = async {
        stream.write_all(text.as_bytes()).await?;
        stream.write_all(b"\n").await?;
        stream.shutdown().await
    };
    timeout(PATIENCE, write).await.map_err(|_| io::ErrorKind::TimedOut)?
}
