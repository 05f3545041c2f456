//! Default places of the socket, the database and the token. Broker, MCP server and CLI all use these functions, so they agree.

use crate::{
    platform::{
        process,
        settings::{self, InvalidSetting},
    },
    wire::PeerId,
};
use std::{
    ffi::{OsStr, OsString},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

/// Our TCP port, and that of legacy brokers.
pub const DEFAULT_PORT: u16 = 7899;
/// The variable with the user's runtime directory, and the socket's place there.
const RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";
const IN_RUNTIME_DIR: &str = "claude-peers/broker.sock";

/// The Unix socket: `CLAUDE_PEERS_SOCKET`, else `claude-peers/broker.sock` in the user's runtime directory, else
/// `.claude-peers/broker.sock` in the home directory.
/// Fails if it is no absolute path of at most 103 bytes.
pub fn socket() -> Result<PathBuf, InvalidSetting> {
    let setting = settings::SOCKET;
    if let Some(path) = setting.set()? {
        return Ok(path.into());
    }
    let (variable, folder, path) = match runtime_dir() {
        Some(folder) => (RUNTIME_DIR, folder, IN_RUNTIME_DIR),
        None => ("HOME", home()?, ".claude-peers/broker.sock"),
    };
    let path = folder.join(path);
    if setting.allows(path.as_os_str()) {
        return Ok(path);
    }
    let allowed = format!("a shorter one, or set {} to {}, since the socket's path would be longer", setting.name, setting.kind);
    Err(InvalidSetting::new(variable, folder.to_string_lossy(), allowed))
}

/// The same for a process to which its agent may not have passed these two variables: the nearest ancestor that has one of them and the same
/// home directory tells. Agents such as Codex pass only some of their environment to the servers that they start.
pub fn socket_of_session() -> Result<PathBuf, InvalidSetting> {
    let is_told = [settings::SOCKET.name, RUNTIME_DIR].iter().any(|variable| settings::raw(variable).is_some());
    let told_above = || process::ancestors(std::process::id()).into_iter().map(process::environment).find_map(told);
    (!is_told).then(told_above).flatten().map_or_else(socket, Ok)
}

/// The socket that this environment names, if it belongs to our home directory.
fn told(environment: Vec<OsString>) -> Option<PathBuf> {
    let value = |name: &str| {
        let mut values =
            environment.iter().filter_map(|entry| entry.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        values.find(|value| !value.is_empty()).map(|value| PathBuf::from(OsStr::from_bytes(value)))
    };
    let is_allowed = |path: &PathBuf| settings::SOCKET.allows(path.as_os_str());
    let in_runtime_dir = || value(RUNTIME_DIR).filter(|dir| is_ours(dir)).map(|dir| dir.join(IN_RUNTIME_DIR));
    value("HOME").filter(|home| std::env::home_dir().as_ref() == Some(home))?;
    value(settings::SOCKET.name).filter(is_allowed).or_else(in_runtime_dir).filter(is_allowed)
}

/// The database: `CLAUDE_PEERS_DB`, else `.claude-peers.db` in the home directory.
/// Fails if the variable is no absolute path; a leading `~/` is understood.
pub fn database() -> Result<PathBuf, InvalidSetting> {
    let path = settings::DB.set()?.unwrap_or_else(|| settings::DB.default.into());
    let path = Path::new(&path);
    match path.strip_prefix("~") {
        Ok(rest) => Ok(home()?.join(rest)),
        Err(_) => Ok(path.to_owned()),
    }
}

/// The folder of what the user has set up: `claude-peers` in `XDG_CONFIG_HOME` if that is an absolute path, else in `~/.config`.
pub fn config_folder() -> Result<PathBuf, InvalidSetting> {
    let set = settings::raw("XDG_CONFIG_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    Ok(set.map_or_else(|| home().map(|home| home.join(".config")), Ok)?.join("claude-peers"))
}

/// What tells that this machine has joined others: the file in which `claude-peers-link` records it.
pub fn link() -> Result<PathBuf, InvalidSetting> {
    Ok(config_folder()?.join("link/link.json"))
}

/// The file that holds the machine token, beside the Unix socket.
pub fn token(socket: &Path) -> PathBuf {
    socket.with_extension("token")
}

/// The socket through which the session `to` answers the peer `from` with its client's own tool. It lies beside the broker's
/// `socket`.
pub fn answers(socket: &Path, to: &PeerId, from: &PeerId) -> PathBuf {
    socket.with_file_name("answers").join(format!("{to}-{from}.sock"))
}

/// The socket on which our plugin in the agent process `agent` listens. It lies beside the broker's `socket`.
pub fn door(socket: &Path, agent: u32) -> PathBuf {
    socket.with_file_name("doors").join(format!("{agent}.sock"))
}

/// The folder with a folder for each container whose socket is open. It lies beside the broker's `socket`. A socket of another name may
/// lie in a folder with other programs' files, so this folder's name then begins with the socket's.
pub fn containers(socket: &Path) -> PathBuf {
    match socket.file_name().and_then(|name| name.to_str()) {
        None | Some("broker.sock") => socket.with_file_name("containers"),
        Some(name) => socket.with_file_name(format!("{name}.containers")),
    }
}

/// The user's home directory.
/// From `HOME`, else from the user database.
pub fn home() -> Result<PathBuf, InvalidSetting> {
    let unusable = || {
        let value = settings::raw("HOME").unwrap_or_default();
        InvalidSetting::new("HOME", value.to_string_lossy(), "the absolute path of the home directory")
    };
    std::env::home_dir().filter(|home| home.is_absolute()).ok_or_else(unusable)
}

/// The runtime directory that the login manager made for this user. Processes without the login's environment (cron, some
/// terminals) find it at its usual place, so both ends use the same socket.
pub fn runtime_dir() -> Option<PathBuf> {
    let usual = || PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw()));
    let set = settings::raw(RUNTIME_DIR).map(PathBuf::from).filter(|dir| is_ours(dir));
    set.or_else(|| Some(usual()).filter(|dir| is_ours(dir)))
}

/// Whether it is a directory of this user.
fn is_ours(dir: &Path) -> bool {
    let uid = rustix::process::getuid().as_raw();
    dir.is_absolute() && std::fs::metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid)
}
