//! Folders whose files change: the kernel tells (inotify). On other systems than Linux nothing tells, and callers look again instead.

#[cfg(target_os = "linux")]
pub use linux::Folders;
#[cfg(not(target_os = "linux"))]
pub use other::Folders;

#[cfg(target_os = "linux")]
mod linux {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    use std::{
        collections::HashSet,
        io,
        os::fd::OwnedFd,
        path::{Path, PathBuf},
    };
    use tokio::io::unix::AsyncFd;

    /// Watched folders.
    #[derive(Debug)]
    pub struct Folders {
        changes: AsyncFd<OwnedFd>,
        watched: HashSet<PathBuf>,
    }

    impl Folders {
        /// Whether changes are told at once.
        pub const TELL: bool = true;

        #[expect(unsafe_code, reason = "tokio has no safe way to wait for this kind of file")]
        pub fn new() -> io::Result<Self> {
            let descriptor = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            // SAFETY: an `OwnedFd` names one and the same open descriptor until it is dropped, and `AsyncFd` owns it until then.
            let changes = unsafe { AsyncFd::register(descriptor) }?;
            Ok(Self { changes, watched: HashSet::new() })
        }

        /// Also watches `folder`, if it is not watched yet.
        pub fn watch(&mut self, folder: &Path) -> io::Result<()> {
            if !self.watched.contains(folder) {
                let events = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
                add_watch(self.changes.get_ref(), folder, events)?;
                self.watched.insert(folder.to_owned());
            }
            Ok(())
        }

        /// Resolves once a file in one of the folders was written or put there. Cancel-safe.
        pub async fn changed(&self) -> io::Result<()> {
            let mut ready = self.changes.readable().await?;
            // Which file it is does not matter, so the events are only read away.
            let mut events = [0; 4096];
            while matches!(rustix::io::read(ready.get_inner(), &mut events), Ok(1..)) {}
            ready.clear_ready();
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::{io, path::Path};

    #[derive(Debug)]
    pub struct Folders;

    impl Folders {
        pub const TELL: bool = false;

        pub fn new() -> io::Result<Self> {
            Ok(Self)
        }

        #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on Linux")]
        pub fn watch(&mut self, _folder: &Path) -> io::Result<()> {
            Ok(())
        }

        pub async fn changed(&self) -> io::Result<()> {
            std::future::pending().await
        }
    }
}
