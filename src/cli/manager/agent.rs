//! The LaunchAgent that has launchd listen for the broker and start it.
//!
//! Promises: the same places give the same bytes, so that a file which is up to date can be told from one that is not. All
//! but the places is said once, in `launchd/dev.claudepeers.broker.plist`.

use plist::Value;
use std::path::{Path, PathBuf};

/// The agent's label, also the name of its file.
pub const LABEL: &str = "dev.claudepeers.broker";
/// The agent as it would be for `/Users/USER`, with a word on each of its settings.
const TEMPLATE: &[u8] = include_bytes!("../../../launchd/dev.claudepeers.broker.plist");

/// Why there can be no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A property list holds text, and this path is none.
    #[error("the path {} is not UTF-8, and launchd takes no other; use another folder", .0.display())]
    Path(PathBuf),
    /// The template has lost a setting.
    #[error("the template of the LaunchAgent has no {0}; this is a bug in claude-peers")]
    Setting(&'static str),
    /// The list cannot be read or written.
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
    let text = |path: PathBuf| path.into_os_string().into_string().map_err(|path| AgentError::Path(path.into()));
    let (program, socket, log) = (text(bin.join("claude-peersd"))?, text(socket.to_owned())?, text(log(home))?);
    let port = port.to_string();
    let mut agent = Value::from_reader_xml(TEMPLATE)?;
    set(&mut agent, &["ProgramArguments"], Value::Array(vec![program.into()]))?;
    set(&mut agent, &["EnvironmentVariables", "CLAUDE_PEERS_PORT"], port.clone().into())?;
    set(&mut agent, &["EnvironmentVariables", "CLAUDE_PEERS_SOCKET"], socket.clone().into())?;
    set(&mut agent, &["Sockets", "unix", "SockPathName"], socket.into())?;
    set(&mut agent, &["Sockets", "tcp", "SockServiceName"], port.into())?;
    set(&mut agent, &["StandardErrorPath"], log.into())?;
    let mut list = Vec::new();
    agent.to_writer_xml(&mut list)?;
    list.push(b'\n');
    Ok(list)
}

/// Changes one of the template's settings.
fn set(agent: &mut Value, place: &[&'static str], value: Value) -> Result<(), AgentError> {
    let mut at = agent;
    for key in place {
        at = at.as_dictionary_mut().and_then(|settings| settings.get_mut(key)).ok_or(AgentError::Setting(key))?;
    }
    *at = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt, process::Command};

    fn read(list: &[u8]) -> Value {
        Value::from_reader_xml(list).unwrap()
    }

    fn alices() -> Vec<u8> {
        let home = Path::new("/Users/alice & bob");
        plist(&home.join(".cargo/bin"), &home.join(".claude-peers/broker.sock"), home, 7900).unwrap()
    }

    #[test]
    fn a_package_for_the_templates_user_is_the_template() {
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
