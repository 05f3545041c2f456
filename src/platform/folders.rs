//! Folders whose files change: the kernel tells (inotify). On other systems than Linux nothing tells, and callers look again instead.

#[cfg(target_os = "linux")]
pub use linux::Folders;
#[cfg(not(target_os = "linux"))]
pub use other::Folders;

#[cfg(target_os = "linux")]
mod linux {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    use std::{collections::HashSet, io, os::fd::OwnedFd, path::PathBuf};
    use tokio::io::unix::AsyncFd;

    #[derive(Debug)]
    pub struct Folders {
        changes: AsyncFd<OwnedFd>,
        /// The kernel's numbers of the folders.
        watched: HashSet<i32>,
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

        /// Watches these folders, too. Returns whether one of them is new. A folder that was created again since is watched again.
        pub fn watch_all(&mut self, folders: impl IntoIterator<Item = PathBuf>) -> io::Result<bool> {
            let events = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
            folders.into_iter().try_fold(false, |are_new, folder| {
                let number = add_watch(self.changes.get_ref(), &folder, events)?;
                Ok(self.watched.insert(number) || are_new)
            })
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
    use std::{io, path::PathBuf};

    #[derive(Debug)]
    pub struct Folders;

    impl Folders {
        pub const TELL: bool = false;

        pub fn new() -> io::Result<Self> {
            Ok(Self)
        }

        #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on Linux")]
        pub fn watch_all(&mut self, _folders: impl IntoIterator<Item = PathBuf>) -> io::Result<bool> {
            Ok(false)
        }

        pub async fn changed(&self) -> io::Result<()> {
            std::future::pending().await
        }
    }
}
