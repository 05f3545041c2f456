//! This user's launchd, through `launchctl`, and the LaunchAgent that makes it listen for the broker and start it.
//! `launchd/dev.claudepeers.broker.plist` explains each setting; a test keeps the two equal.

use crate::{
    console::Failure,
    platform::{
        call::{Call, CallFailed},
        retry::Retry,
    },
};
use ::launchd::{
    KeepAliveOptions,
    sockets::{SocketFamily, SocketOptions, SocketType, Sockets},
};
use plist::Value;
use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

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
    let unusable = |what: String| Failure::local(what, "install the programs in a folder with a plain name");
    let no_text = || unusable(format!("{} or {} is not UTF-8, as a LaunchAgent needs it", home.display(), bin.display()));
    let (broker, socket) = (bin.join("claude-peersd"), socket(home));
    let (Some(program), Some(address)) = (broker.to_str(), socket.to_str()) else { return Err(no_text()) };
    let places = [("CLAUDE_PEERS_PORT", port.to_string()), ("CLAUDE_PEERS_SOCKET", address.to_owned())];
    let unix = SocketOptions::new().with_type(SocketType::Stream).with_path_name(&socket).map_err(|_| no_text())?;
    let tcp = SocketOptions::new()
        .with_type(SocketType::Stream)
        .with_family(SocketFamily::IPv4)
        .with_node_name(Ipv4Addr::LOCALHOST.to_string())
        .with_service_name(port.to_string());
    let agent = ::launchd::Launchd::new(LABEL, &broker)
        .and_then(|agent| agent.with_standard_error_path(log(home)))
        .map_err(|_| no_text())?
        .with_program_arguments(vec![program.to_owned()])
        .with_environment_variables(HashMap::from(places.map(|(name, value)| (name.to_owned(), value))))
        .with_socket(Sockets::Dictionary(HashMap::from([("unix".to_owned(), unix), ("tcp".to_owned(), tcp)])))
        .with_keep_alive(KeepAliveOptions::new().with_successful_exit(false).into())
        .with_umask(0o077);
    let cannot = |error| unusable(format!("writing the LaunchAgent: {error}"));
    let mut agent = plist::to_value(&agent).map_err(cannot)?;
    // The crate's integer type for the mode does not fit into a property list.
    let unix = ["Sockets", "unix"].iter().try_fold(&mut agent, |at, key| at.as_dictionary_mut()?.get_mut(key));
    if let Some(unix) = unix.and_then(Value::as_dictionary_mut) {
        unix.insert("SockPathMode".to_owned(), 0o600.into());
    }
    sort(&mut agent);
    let mut list = Vec::new();
    agent.to_writer_xml(&mut list).map_err(cannot)?;
    list.push(b'\n');
    String::from_utf8(list).map_err(|_| no_text())
}

/// Sorts the keys, at every depth.
fn sort(value: &mut Value) {
    if let Some(settings) = value.as_dictionary_mut() {
        settings.sort_keys();
        settings.iter_mut().for_each(|(_, value)| sort(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = include_str!("../../../launchd/dev.claudepeers.broker.plist");

    #[test]
    fn documented_agent_is_the_written_one() {
        for (home, in_xml, port) in [("/Users/USER", "/Users/USER", 7899), ("/Users/al & bob", "/Users/al &amp; bob", 7900)] {
            let written = || agent(Path::new("/usr/local/bin"), Path::new(home), port).expect("an agent");
            let documented = TEMPLATE.replace("/Users/USER", in_xml).replace("7899", &port.to_string());
            let read = |list: &str| Value::from_reader_xml(list.as_bytes()).expect("a property list");
            assert_eq!(read(&written()), read(&documented));
            assert_eq!(written(), written(), "the same places give the same text");
        }
    }
}
