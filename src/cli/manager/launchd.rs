//! The user's launchd, through `launchctl`.

use super::{Absent, LABEL, PATIENCE};
use crate::cli::call::{Call, CallFailed};
use std::{path::Path, time::Duration};

/// How often launchd is asked whether it has forgotten a job; it does not say so by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The launchd of this user's login.
#[derive(Debug, Clone)]
pub struct Launchd {
    uid: u32,
}

impl Launchd {
    /// Asks for the domain of this user's login.
    pub(super) async fn find() -> Result<Self, Absent> {
        let launchd = Self { uid: rustix::process::getuid().as_raw() };
        match launchd.call(["print", &launchd.domain()]).run().await {
            Ok(_) => Ok(launchd),
            Err(error) => Err(Absent {
                reason: format!("this user has no login session that launchd serves: {error}"),
                help: Some("run this in a terminal of the desktop session, not over SSH".to_owned()),
            }),
        }
    }

    /// The domain of the user's login.
    pub fn domain(&self) -> String {
        format!("gui/{}", self.uid)
    }

    /// The broker's job in it.
    pub fn job(&self) -> String {
        format!("{}/{LABEL}", self.domain())
    }

    /// `launchctl` with these words.
    pub fn call<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Call {
        Call::new("launchctl", "launchctl", words, PATIENCE)
    }

    /// Takes back that the user has disabled the job: launchd would not load it.
    pub fn enable(&self) -> Call {
        self.call(["enable", &self.job()])
    }

    /// Loads the job from its file. launchd refuses one that it knows already ([`Self::unload`]) or that is disabled.
    pub fn bootstrap(&self, plist: &Path) -> Call {
        self.call(["bootstrap", &self.domain(), &plist.to_string_lossy()])
    }

    /// Ends the job and waits until launchd has forgotten it.
    ///
    /// # Errors
    /// If launchd refuses, and knows the job still.
    pub async fn unload(&self) -> Result<(), CallFailed> {
        let asked = self.call(["bootout", &self.job()]).run().await;
        // While the broker is still ending launchd calls that a failure, which it is not.
        if self.gone().await { Ok(()) } else { asked.map(drop) }
    }

    /// Waits until launchd has forgotten the job; says whether it has.
    async fn gone(&self) -> bool {
        let forgotten = async {
            while self.print().await.is_some() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(PATIENCE, forgotten).await.is_ok()
    }

    /// Starts the broker.
    pub fn kickstart(&self) -> Call {
        self.call(["kickstart", &self.job()])
    }

    /// Has the running broker finish what it has accepted and end. launchd keeps the sockets, and the next connection, which
    /// sessions make by themselves, starts it again.
    pub fn restart(&self) -> Call {
        self.call(["kill", "SIGTERM", &self.job()])
    }

    /// Ends a broker that does not listen to [`Self::restart`]; launchd starts it again.
    pub fn kill(&self) -> Call {
        self.call(["kill", "SIGKILL", &self.job()])
    }

    /// What launchd knows of the job, in its own words; none where it is not loaded.
    pub async fn print(&self) -> Option<String> {
        self.call(["print", &self.job()]).run().await.ok()
    }

    /// The job's process, while it runs.
    ///
    /// # Errors
    /// If launchd does not answer.
    pub async fn pid(&self) -> Result<Option<u32>, CallFailed> {
        // `launchctl list` gives a line a job: its process or `-`, its last status, its label.
        let listed = self.call(["list"]).run().await?;
        let mut jobs = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        Ok(jobs.find(|job| job.last() == Some(&LABEL)).and_then(|job| job.first()?.parse().ok()))
    }
}
