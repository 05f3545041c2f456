//! Reasons to end besides the end of stdin: the parent process has died, or a signal came.

use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often to check for the parent where the kernel cannot report its death.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Waits until this process should end, and says why.
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
            super::log!("listening for a signal: {error}");
            std::future::pending().await
        }
    }
}

async fn gone(parent: Option<u32>) {
    let Some(parent) = parent else { return std::future::pending().await };
    #[cfg(target_os = "linux")]
    match watch(parent) {
        // If the parent died before this call, its number may belong to another process by now.
        Ok(death) if crate::platform::process::parent() == Some(parent) => match death.readable().await {
            Ok(_) => return,
            Err(error) => super::log!("watching the parent process: {error}; checking now and then instead"),
        },
        Ok(_) => return,
        Err(error) => super::log!("watching the parent process: {error}; checking now and then instead"),
    }
    while crate::platform::process::parent() == Some(parent) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A descriptor that becomes readable when the process dies.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "tokio leaves it to the caller to keep a registered descriptor open")]
fn watch(pid: u32) -> std::io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use tokio::io::{Interest, unix::AsyncFd};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(std::io::ErrorKind::NotFound)?;
    let descriptor = pidfd_open(pid, PidfdFlags::empty())?;
    // SAFETY: an `OwnedFd` names one and the same open descriptor until it is dropped, and `AsyncFd` owns it until then.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
