//! The user's launchd, through `launchctl`, and the LaunchAgent that has it listen for the broker and start it.
//!
//! Promises: the same places give the same agent to the byte, so that a file which is up to date can be told from one that is not.
//! `launchd/dev.claudepeers.broker.plist` shows it, with a word on each setting; a test holds it to that.

use super::{Absent, PATIENCE};
use crate::{
    console::exit::Problem,
    platform::call::{Call, CallFailed},
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

/// How often launchd is asked whether it has forgotten a job; it does not say so by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub struct Launchd {
    /// `gui/UID`
    domain: String,
    /// The broker's job in it.
    job: String,
}

impl Launchd {
    /// Asks for the domain of this user's login.
    pub(super) async fn find() -> Result<Self, Absent> {
        let domain = domain();
        call(["print", &domain]).run().await.map_err(|error| Absent {
            reason: format!("this user has no login session that launchd serves: {error}"),
            help: Some("run this in a terminal of the desktop session, not over SSH"),
        })?;
        Ok(Self { job: format!("{domain}/{LABEL}"), domain })
    }

    /// `launchctl` with these words and the job.
    fn on<'a>(&'a self, words: &[&'a str]) -> Call {
        call(words.iter().copied().chain([self.job.as_str()]))
    }

    /// Takes back that the user has disabled the job: launchd would not load it.
    pub fn enable(&self) -> Call {
        self.on(&["enable"])
    }

    /// Loads the job from its file. launchd refuses one that it knows already ([`Self::unload`]) or that is disabled.
    pub fn bootstrap(&self, plist: &Path) -> Call {
        call(["bootstrap", &self.domain, &plist.to_string_lossy()])
    }

    /// Ends the job and waits until launchd has forgotten it.
    pub async fn unload(&self) -> Result<(), CallFailed> {
        let asked = self.on(&["bootout"]).run().await;
        let forgotten = async {
            while self.knows().await {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        // While the broker is still ending launchd calls that a failure, which it is not.
        if tokio::time::timeout(PATIENCE, forgotten).await.is_ok() { Ok(()) } else { asked.map(drop) }
    }

    pub fn kickstart(&self) -> Call {
        self.on(&["kickstart"])
    }

    /// Has the running broker finish what it has accepted and end. launchd keeps the sockets, and the next connection, which
    /// sessions make by themselves, starts it again.
    pub fn restart(&self) -> Call {
        self.on(&["kill", "SIGTERM"])
    }

    /// Ends a broker that does not listen to [`Self::restart`]; launchd starts it again.
    pub fn kill(&self) -> Call {
        self.on(&["kill", "SIGKILL"])
    }

    pub async fn knows(&self) -> bool {
        self.on(&["print"]).run().await.is_ok()
    }

    /// The job's process, while it runs.
    pub async fn pid(&self) -> Result<Option<u32>, CallFailed> {
        // `launchctl list` gives a line a job: its process or `-`, its last status, its label.
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

/// The agent's label, also the name of its file.
pub const LABEL: &str = "dev.claudepeers.broker";

/// Where the broker's log goes. launchd makes the file but not its folder, nor the socket's.
pub fn log(home: &Path) -> PathBuf {
    home.join("Library/Logs/claude-peers/broker.log")
}

/// The agent as a property list in XML: the broker in the folder `bin`, its Unix socket, its log in `home`, its port.
pub fn plist(bin: &Path, socket: &Path, home: &Path, port: u16) -> Result<Vec<u8>, Problem> {
    let unusable = |what: String| Problem::new(what, "install the programs in a folder with a plain name");
    let text = |path: &Path| {
        let not_text = || unusable(format!("the path {} is not UTF-8, and a LaunchAgent holds no other", path.display()));
        path.to_str().map(str::to_owned).ok_or_else(not_text)
    };
    let no_text =
        |_| unusable(format!("{} or {} is not UTF-8, and a LaunchAgent holds no other", home.display(), socket.display()));
    let broker = bin.join("claude-peersd");
    let places = [("CLAUDE_PEERS_PORT", port.to_string()), ("CLAUDE_PEERS_SOCKET", text(socket)?)];
    let unix = SocketOptions::new().with_type(SocketType::Stream).with_path_name(socket).map_err(no_text)?;
    let tcp = SocketOptions::new()
        .with_type(SocketType::Stream)
        .with_family(SocketFamily::IPv4)
        .with_node_name(Ipv4Addr::LOCALHOST.to_string())
        .with_service_name(port.to_string());
    let agent = ::launchd::Launchd::new(LABEL, &broker)
        .and_then(|agent| agent.with_standard_error_path(log(home)))
        .map_err(no_text)?
        .with_program_arguments(vec![text(&broker)?])
        .with_environment_variables(HashMap::from(places.map(|(name, value)| (name.to_owned(), value))))
        .with_socket(Sockets::Dictionary(HashMap::from([("unix".to_owned(), unix), ("tcp".to_owned(), tcp)])))
        .with_keep_alive(KeepAliveOptions::new().with_successful_exit(false).into())
        .with_umask(0o077);
    let cannot = |error| unusable(format!("writing the LaunchAgent: {error}"));
    let mut agent = plist::to_value(&agent).map_err(cannot)?;
    // The crate keeps the mode as a number of 128 bits, which a property list does not know.
    let unix = ["Sockets", "unix"].iter().try_fold(&mut agent, |at, key| at.as_dictionary_mut()?.get_mut(key));
    if let Some(unix) = unix.and_then(Value::as_dictionary_mut) {
        unix.insert("SockPathMode".to_owned(), 0o600.into());
    }
    sort(&mut agent);
    let mut list = Vec::new();
    agent.to_writer_xml(&mut list).map_err(cannot)?;
    list.push(b'\n');
    Ok(list)
}

/// Brings settings into an order that is always the same.
fn sort(value: &mut Value) {
    if let Some(settings) = value.as_dictionary_mut() {
        settings.sort_keys();
        settings.iter_mut().for_each(|(_, value)| sort(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    /// The agent as it would be for `/Users/USER`, with a word on each of its settings.
    const TEMPLATE: &str = include_str!("../../../launchd/dev.claudepeers.broker.plist");

    fn agent(home: &str, port: u16) -> Vec<u8> {
        let home = Path::new(home);
        plist(Path::new("/usr/local/bin"), &home.join(".claude-peers/broker.sock"), home, port).unwrap()
    }

    #[test]
    fn the_documented_agent_is_the_one_that_is_written() {
        for (home, in_xml, port) in [("/Users/USER", "/Users/USER", 7899), ("/Users/al & bob", "/Users/al &amp; bob", 7900)] {
            let list = agent(home, port);
            let documented = TEMPLATE.replace("/Users/USER", in_xml).replace("7899", &port.to_string());
            let read = |list: &[u8]| Value::from_reader_xml(list).unwrap();
            assert_eq!(read(&list), read(documented.as_bytes()));
            assert_eq!(agent(home, port), list, "the same places give the same bytes");
        }
    }

    #[test]
    fn a_path_that_is_no_text_is_refused_by_name() {
        let socket = Path::new(OsStr::from_bytes(b"/Users/\xff/broker.sock"));
        let error = plist(Path::new("/usr/local/bin"), socket, Path::new("/Users/alice"), 7899).unwrap_err().what;
        assert!(error.contains("broker.sock is not UTF-8"), "{error}");
    }
}
