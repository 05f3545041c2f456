//! The `claude` process that started this hook.

use crate::process;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, OwnedFd};
use std::{os::fd::BorrowedFd, time::Duration};

/// How often the process is looked at where the kernel cannot tell of its death.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The process that runs the session.
#[derive(Debug)]
pub struct Host {
    /// Its number.
    pub pid: u32,
    /// Becomes readable when it dies.
    #[cfg(target_os = "linux")]
    death: Option<OwnedFd>,
}

impl Host {
    /// The process with this number.
    pub fn of(pid: u32) -> Self {
        Self {
            pid,
            #[cfg(target_os = "linux")]
            death: None,
        }
    }

    /// The same, with an eye on its death.
    #[cfg(target_os = "linux")]
    pub fn watched(&self) -> Self {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        Self { pid: self.pid, death: pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) }
    }

    /// The same, with an eye on its death.
    #[cfg(not(target_os = "linux"))]
    pub fn watched(&self) -> Self {
        Self::of(self.pid)
    }

    /// Whether it lives, as the process that started this one: with its death this one gets another parent.
    pub fn lives(&self) -> bool {
        process::descends_from(std::process::id(), self.pid)
    }

    /// What becomes readable when it dies.
    pub fn death(&self) -> Option<BorrowedFd<'_>> {
        #[cfg(target_os = "linux")]
        return self.death.as_ref().map(AsFd::as_fd);
        #[cfg(not(target_os = "linux"))]
        return None;
    }

    /// How long to sleep at most before it is looked at again.
    pub fn look_again(&self) -> Option<Duration> {
        self.death().is_none().then_some(LOOK_AGAIN)
    }
}
