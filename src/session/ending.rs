//! Reasons to end besides the end of stdin: the parent process has died, or a signal has arrived.

use super::log;
use crate::platform::process;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often to check for the parent where the kernel cannot report its death.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Waits until this process should end, and returns the reason.
pub async fn wait(parent: Option<u32>) -> &'static str {
    tokio::select! {
        () = gone(parent) => "the process that started this one is gone",
        () = asked(SignalKind::terminate()) => "asked to (SIGTERM)",
        () = asked(SignalKind::interrupt()) => "asked to (SIGINT)",
        () = asked(SignalKind::hangup()) => "asked to (SIGHUP)",
    }
}

async fn asked(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signal) => _ = signal.recv().await,
        Err(error) => {
            log!("listening for a signal: {error}");
            std::future::pending().await
        }
    }
}

async fn gone(parent: Option<u32>) {
    let Some(parent) = parent else { return std::future::pending().await };
    #[cfg(target_os = "linux")]
    match end(parent).await {
        Ok(()) => return,
        Err(error) => log!("watching the parent process: {error}; checking now and then instead"),
    }
    while process::parent() == Some(parent) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits for the end of a process; the kernel reports it through a descriptor.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "tokio leaves it to the caller to keep a registered descriptor open")]
async fn end(parent: u32) -> std::io::Result<()> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use tokio::io::{Interest, unix::AsyncFd};
    let pid = i32::try_from(parent).ok().and_then(Pid::from_raw).ok_or(std::io::ErrorKind::NotFound)?;
    let descriptor = pidfd_open(pid, PidfdFlags::empty())?;
    // SAFETY: an `OwnedFd` names one and the same open descriptor until it is dropped, and `AsyncFd` owns it until then.
    let death = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
    // If the parent died before this call, its number may belong to another process by now.
    if process::parent() == Some(parent) {
        drop(death.readable().await?);
    }
    Ok(())
}
