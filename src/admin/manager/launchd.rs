//! This user's launchd, through `launchctl`, and the LaunchAgent that makes it listen for the broker and start it.

use crate::{
    console::Failure,
    platform::{
        call::{Call, CallFailed},
        retry::Retry,
    },
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The agent, with places and a port that [`agent`] replaces.
const AGENT: &str = include_str!("../../../launchd/dev.claudepeers.broker.plist");
/// The job's label, and the name of its file.
pub const LABEL: &str = "dev.claudepeers.broker";
/// launchd may have to start a broker, or wait for one that drains.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long launchd may still know a job after unloading it.
const FORGETTING: Retry = Retry { pause: (Duration::from_millis(100), Duration::from_millis(100)), patience: PATIENCE };

#[derive(Debug, Clone)]
pub struct Launchd {
    /// `gui/UID`
    domain: String,
    job: String,
}

impl Launchd {
    /// Finds launchd, or explains why it cannot be used and how to reach it.
    pub(super) async fn find() -> Result<Self, (String, Option<&'static str>)> {
        let domain = domain();
        let reason = |error| format!("this user has no login session that launchd serves: {error}");
        let help = "run this in a terminal of the desktop session, not over SSH";
        call(["print", &domain]).run().await.map_err(|error| (reason(error), Some(help)))?;
        Ok(Self { job: format!("{domain}/{LABEL}"), domain })
    }

    /// A call that is about the job. launchd does not load a job that the user has disabled (`enable`), and starts one again that
    /// has ended (`kill`).
    pub fn on<'a>(&'a self, words: &[&'a str]) -> Call {
        call(words.iter().copied().chain([self.job.as_str()]))
    }

    /// Loads the job from its file. It must not be loaded already.
    pub fn bootstrap(&self, plist: &Path) -> Call {
        call(["bootstrap", &self.domain, &plist.to_string_lossy()])
    }

    /// Ends the job and waits until launchd has forgotten it.
    pub async fn unload(&self) -> Result<(), CallFailed> {
        let asked = self.on(&["bootout"]).run().await;
        let known = FORGETTING.run(async || self.knows().await, |known| *known).await;
        // launchd reports a failure while the broker is still draining.
        if known { asked.map(drop) } else { Ok(()) }
    }

    /// Drains and ends the broker. launchd keeps the sockets and starts it on the next connection, which sessions make at once.
    pub fn restart(&self) -> Call {
        self.on(&["kill", "SIGTERM"])
    }

    pub async fn knows(&self) -> bool {
        self.on(&["print"]).run().await.is_ok()
    }

    pub async fn pid(&self) -> Result<Option<u32>, CallFailed> {
        // A line per job: process or `-`, last status, label.
        let listed = call(["list"]).run().await?;
        let mut jobs = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        Ok(jobs.find(|job| job.last() == Some(&LABEL)).and_then(|job| job.first()?.parse().ok()))
    }
}

pub fn domain() -> String {
    format!("gui/{}", rustix::process::getuid().as_raw())
}

fn call<'a>(words: impl IntoIterator<Item = &'a str>) -> Call {
    Call::new("launchctl", "launchctl", words, PATIENCE)
}

pub fn socket(home: &Path) -> PathBuf {
    home.join(".claude-peers/broker.sock")
}

pub fn log(home: &Path) -> PathBuf {
    home.join("Library/Logs/claude-peers/broker.log")
}

/// The agent for the programs in `bin`, as an XML property list. Equal places give equal text, so a comparison shows whether an
/// installed agent is current.
pub fn agent(bin: &Path, home: &Path, port: u16) -> Result<String, Failure> {
    let what = || format!("{} or {} is not UTF-8, as a LaunchAgent needs it", home.display(), bin.display());
    let no_text = || Failure::local(what(), "install the programs in a folder with a plain name");
    let (Some(home), Some(bin)) = (home.to_str(), bin.to_str()) else { return Err(no_text()) };
    let in_xml = |path: &str| path.replace('&', "&amp;").replace('<', "&lt;");
    // What comes in is not searched for what comes next: no home directory has a program's path in its own.
    let agent = AGENT.replace("7899", &port.to_string()).replace("/Users/USER", &in_xml(home));
    Ok(agent.replace("/usr/local/bin/claude-peersd", &in_xml(&format!("{bin}/claude-peersd"))))
}
