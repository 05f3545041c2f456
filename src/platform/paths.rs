//! Default places of the socket, the database and the token. Broker, MCP server and CLI all use these functions, so they agree.

use crate::{
    platform::settings::{self, InvalidSetting},
    wire::PeerId,
};
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Our TCP port, and that of legacy brokers.
pub const DEFAULT_PORT: u16 = 7899;
/// The Unix socket: `CLAUDE_PEERS_SOCKET`, else `claude-peers/broker.sock` in the user's runtime directory, else
/// `.claude-peers/broker.sock` in the home directory.
/// Fails if it is no absolute path of at most 103 bytes.
pub fn socket() -> Result<PathBuf, InvalidSetting> {
    let setting = settings::SOCKET;
    if let Some(path) = setting.set()? {
        return Ok(path.into());
    }
    let (variable, folder, path) = match runtime_dir() {
        Some(folder) => ("XDG_RUNTIME_DIR", folder, "claude-peers/broker.sock"),
        None => ("HOME", home()?, ".claude-peers/broker.sock"),
    };
    let path = folder.join(path);
    if setting.allows(path.as_os_str()) {
        return Ok(path);
    }
    let allowed = format!("a shorter one, or set {} to {}, since {} is longer", setting.name, setting.kind, path.display());
    Err(InvalidSetting::new(variable, folder.to_string_lossy(), allowed))
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

/// The file that holds the machine token, beside the Unix socket.
pub fn token(socket: &Path) -> PathBuf {
    socket.with_extension("token")
}

/// The socket through which the session `to` answers the peer `from` with its client's own tool. It lies beside the broker's
/// `socket`.
pub fn answers(socket: &Path, to: &PeerId, from: &PeerId) -> PathBuf {
    socket.with_file_name("answers").join(format!("{to}-{from}.sock"))
}

/// The TCP port: `CLAUDE_PEERS_PORT`, else 7899; 0 lets the system choose a free one.
pub fn port() -> Result<u16, InvalidSetting> {
    settings::PORT.parse()
}

/// The user's home directory.
/// From `HOME`, else from the user database.
pub fn home() -> Result<PathBuf, InvalidSetting> {
    std::env::home_dir()
        .filter(|home| home.is_absolute())
        .ok_or_else(|| InvalidSetting::new("HOME", "", "the absolute path of the home directory"))
}

/// The runtime directory that the login manager made for this user. Processes without the login's environment (cron, some
/// terminals) find it at its usual place, so both ends use the same socket.
pub fn runtime_dir() -> Option<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let ours = |dir: &PathBuf| dir.is_absolute() && std::fs::metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid);
    settings::raw("XDG_RUNTIME_DIR").map(PathBuf::from).filter(ours).or_else(|| {
        let usual = PathBuf::from(format!("/run/user/{uid}"));
        Some(usual).filter(ours)
    })
}
