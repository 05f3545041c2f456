//! The LaunchAgent that has launchd listen for the broker and start it.
//!
//! Promises: the same places give the same bytes, so that a file which is up to date can be told from one that is not.
//! `launchd/dev.claudepeers.broker.plist` shows the result, with a word on each setting; a test holds it to that.

use launchd::{
    KeepAliveOptions, Launchd,
    sockets::{SocketFamily, SocketOptions, SocketType, Sockets},
};
use plist::{Dictionary, Value};
use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

/// The agent's label, also the name of its file.
pub const LABEL: &str = "dev.claudepeers.broker";

/// The Unix socket's mode, 0600: nobody else may connect.
const SOCKET_MODE: u64 = 0o600;
/// Every file that the broker makes is the user's alone.
const UMASK: u16 = 0o077;

/// Why there can be no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A property list holds text, and this path is none.
    #[error("the path {} is not UTF-8, and a LaunchAgent holds no other", .0.display())]
    Path(PathBuf),
    /// The list cannot be made.
    #[error("writing the LaunchAgent: {0}")]
    List(#[from] plist::Error),
}

/// Where the broker's log goes. launchd makes the file but not its folder, nor the socket's.
pub fn log(home: &Path) -> PathBuf {
    home.join("Library/Logs/claude-peers/broker.log")
}

/// The agent as a property list in XML: the broker in the folder `bin`, its Unix socket, its log in `home`, its port.
///
/// # Errors
/// If a path is not UTF-8.
pub fn plist(bin: &Path, socket: &Path, home: &Path, port: u16) -> Result<Vec<u8>, AgentError> {
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| AgentError::Path(path.to_owned()));
    let program = text(&bin.join("claude-peersd"))?;
    let places = [("CLAUDE_PEERS_PORT", port.to_string()), ("CLAUDE_PEERS_SOCKET", text(socket)?)];
    let unix = SocketOptions::new()
        .with_type(SocketType::Stream)
        .with_path_name(socket)
        .map_err(|_| AgentError::Path(socket.to_owned()))?;
    let tcp = SocketOptions::new()
        .with_type(SocketType::Stream)
        .with_family(SocketFamily::IPv4)
        .with_node_name(Ipv4Addr::LOCALHOST.to_string())
        .with_service_name(port.to_string());
    let agent = Launchd::new(LABEL, bin.join("claude-peersd"))
        .and_then(|agent| agent.with_standard_error_path(log(home)))
        .map_err(|_| AgentError::Path(home.to_owned()))?
        .with_program_arguments(vec![program])
        .with_environment_variables(HashMap::from(places.map(|(name, value)| (name.to_owned(), value))))
        .with_socket(Sockets::Dictionary(HashMap::from([("unix".to_owned(), unix), ("tcp".to_owned(), tcp)])))
        .with_keep_alive(KeepAliveOptions::new().with_successful_exit(false).into())
        .with_umask(UMASK);
    let mut agent = plist::to_value(&agent)?;
    // The crate keeps the mode as a number of 128 bits, which a property list does not know.
    if let Some(unix) = inside(&mut agent, &["Sockets", "unix"]) {
        unix.insert("SockPathMode".to_owned(), SOCKET_MODE.into());
    }
    sort(&mut agent);
    let mut list = Vec::new();
    agent.to_writer_xml(&mut list)?;
    list.push(b'\n');
    Ok(list)
}

/// The dictionary at this place.
fn inside<'a>(agent: &'a mut Value, place: &[&str]) -> Option<&'a mut Dictionary> {
    place.iter().try_fold(agent.as_dictionary_mut()?, |at, key| at.get_mut(key)?.as_dictionary_mut())
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
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt, process::Command};

    /// The agent as it would be for `/Users/USER`, with a word on each of its settings.
    const TEMPLATE: &[u8] = include_bytes!("../../../launchd/dev.claudepeers.broker.plist");

    fn read(list: &[u8]) -> Value {
        Value::from_reader_xml(list).unwrap()
    }

    fn alices() -> Vec<u8> {
        let home = Path::new("/Users/alice & bob");
        plist(&home.join(".cargo/bin"), &home.join(".claude-peers/broker.sock"), home, 7900).unwrap()
    }

    #[test]
    fn the_documented_agent_is_the_one_that_is_written() {
        let (bin, home) = (Path::new("/usr/local/bin"), Path::new("/Users/USER"));
        let list = plist(bin, &home.join(".claude-peers/broker.sock"), home, crate::paths::DEFAULT_PORT).unwrap();
        assert_eq!(read(&list), read(TEMPLATE));
    }

    #[test]
    fn launchd_is_told_what_it_needs_and_in_its_types() {
        let agent = read(&alices());
        let socket = "/Users/alice & bob/.claude-peers/broker.sock";
        let expected: [(&[&str], Value); 12] = [
            (&["Label"], LABEL.into()),
            (&["ProgramArguments"], Value::Array(vec!["/Users/alice & bob/.cargo/bin/claude-peersd".into()])),
            (&["EnvironmentVariables", "CLAUDE_PEERS_PORT"], "7900".into()),
            (&["EnvironmentVariables", "CLAUDE_PEERS_SOCKET"], socket.into()),
            (&["Sockets", "unix", "SockPathName"], socket.into()),
            (&["Sockets", "unix", "SockPathMode"], 0o600.into()),
            (&["Sockets", "tcp", "SockNodeName"], "127.0.0.1".into()),
            (&["Sockets", "tcp", "SockServiceName"], "7900".into()),
            (&["Sockets", "tcp", "SockFamily"], "IPv4".into()),
            (&["KeepAlive", "SuccessfulExit"], false.into()),
            (&["StandardErrorPath"], "/Users/alice & bob/Library/Logs/claude-peers/broker.log".into()),
            (&["Umask"], 0o077.into()),
        ];
        for (place, value) in expected {
            let found = place.iter().try_fold(&agent, |at, key| at.as_dictionary()?.get(key));
            assert_eq!(found, Some(&value), "{place:?}");
        }
        // Nothing of the template's user is left.
        assert!(!String::from_utf8(alices()).unwrap().contains("USER"));
    }

    #[test]
    fn the_same_places_give_the_same_bytes() {
        assert_eq!(alices(), alices());
    }

    #[test]
    fn a_path_that_is_no_text_is_refused_by_name() {
        let socket = Path::new(OsStr::from_bytes(b"/Users/\xff/broker.sock"));
        let error = plist(Path::new("/usr/local/bin"), socket, Path::new("/Users/alice"), 7899).unwrap_err().to_string();
        assert!(error.contains("broker.sock is not UTF-8"), "{error}");
    }

    /// Apple's own parser is not to be had here, but one that others wrote after it is.
    #[test]
    fn another_parser_reads_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (xml, binary) = (folder.path().join("agent.plist"), folder.path().join("agent.bin"));
        std::fs::write(&xml, alices()).unwrap();
        let converted = Command::new("plistutil").args(["-f", "bin", "-i"]).arg(&xml).arg("-o").arg(&binary).status();
        let Ok(status) = converted else {
            eprintln!("SKIPPED: plistutil (Debian's libplist-utils) is not installed");
            return;
        };
        assert!(status.success());
        assert_eq!(Value::from_file(&binary).unwrap(), read(&alices()));
    }
}
