//! Claude Code: where it is, which version, and its registration of our MCP server.
//!
//! Promises: Claude Code's files are only read here. What changes its registrations is Claude Code itself, through a [`Call`]; its
//! settings, which nothing else writes, setup does. A file that cannot be understood is an error that names it with line and column.

mod hooks;
mod managed;
mod places;
mod plugin;
mod registrations;

pub use hooks::{HooksFile, Installed};
pub use managed::hooks_forbidden_by;
pub use plugin::{PLUGIN, has_plugin};
pub use registrations::{Registrations, Scope, Server, Unreadable};

use crate::{
    cli::call::{Call, CallFailed},
    paths,
    settings::{self, InvalidSetting},
};
use serde::de::DeserializeOwned;
use std::{ffi::OsString, fmt, fs, io, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

/// The name under which our MCP server is registered; Claude Code's channel flag says the same.
pub const NAME: &str = "claude-peers";
/// The oldest Claude Code that knows channels.
pub const OLDEST: Version = Version([2, 1, 80]);
/// The oldest Claude Code into which our hooks are put: the first that tells a hook its process (`CLAUDE_PID`), without which ours
/// know no session. Found by running a hook under the published programs: 2.1.212 does not set it, 2.1.213 does (`asyncRewake` is in
/// those from 2.1.64 on).
pub const OLDEST_WITH_HOOKS: Version = Version([2, 1, 213]);
/// How long one call of `claude` may take: it is a large program that may be read from a slow disk for the first time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The `claude` program.
#[derive(Debug, Clone)]
pub struct Claude {
    /// Its file.
    pub path: PathBuf,
    /// The search path under which it and what it needs (node) are found.
    search: OsString,
}

impl Claude {
    /// Looks for it: where `CLAUDE_PEERS_CLAUDE` says, else in `PATH`, else in the places where installers put it. A service
    /// manager does not know the `PATH` of a login.
    ///
    /// # Errors
    /// If the variable names no program, or there is no home directory.
    pub fn find() -> Result<Option<Self>, InvalidSetting> {
        const VARIABLE: &str = "CLAUDE_PEERS_CLAUDE";
        let path = match settings::raw(VARIABLE).map(PathBuf::from) {
            Some(path) => {
                let runs =
                    |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
                if !path.is_absolute() || !runs(&path) {
                    return Err(InvalidSetting::new(
                        VARIABLE,
                        path.to_string_lossy(),
                        "the absolute path of the program `claude`",
                    ));
                }
                path
            }
            None => {
                let search = std::env::join_paths(places::all()?).unwrap_or_default();
                // Found or not: the only errors are those of looking.
                match which::which_in("claude", Some(search), "/") {
                    Ok(path) => path,
                    Err(_) => return Ok(None),
                }
            }
        };
        // A script of npm's is run by the node beside it.
        let beside = path.parent().map(PathBuf::from);
        let search = std::env::join_paths(beside.into_iter().chain(places::all()?)).unwrap_or_default();
        Ok(Some(Self { path, search }))
    }

    /// Asks it for its version.
    ///
    /// # Errors
    /// If it does not run, or says something else.
    pub async fn version(&self) -> Result<Version, VersionUnknown> {
        let said = self.call(["--version"]).run().await?;
        Version::read(&said)
            .ok_or(VersionUnknown::Said { path: self.path.clone(), said: said.trim().chars().take(100).collect() })
    }

    /// Registers `server` for all projects of this user.
    pub fn register(&self, server: &str) -> Call {
        self.call(["mcp", "add", "--scope", "user", "--transport", "stdio", NAME, "--", server])
    }

    /// Takes the registration for all projects out again.
    pub fn deregister(&self) -> Call {
        self.call(["mcp", "remove", "--scope", "user", NAME])
    }

    fn call<const N: usize>(&self, words: [&str; N]) -> Call {
        // What surrounds this call may be a session of Claude Code's; the folder must not decide about anything.
        Call::new("claude", &self.path, words, PATIENCE)
            .env("PATH", &self.search)
            .directory(paths::home().unwrap_or_else(|_| "/".into()))
    }
}

/// Where Claude Code keeps its settings of this user.
fn config_folder() -> Result<PathBuf, InvalidSetting> {
    settings::raw("CLAUDE_CONFIG_DIR").map_or_else(|| Ok(paths::home()?.join(".claude")), |folder| Ok(PathBuf::from(folder)))
}

/// What a file says; one that is not there, or empty, says nothing.
fn read_json<T: DeserializeOwned + Default>(file: PathBuf) -> Result<T, Unreadable> {
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        Err(source) => return Err(Unreadable::System { file, source }),
    };
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    if text.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(text).map_err(|source| Unreadable::Broken { file, source })
}

/// How one registers `server` by hand.
pub fn by_hand(server: &str) -> String {
    format!("claude mcp add --scope user --transport stdio {NAME} -- {}", crate::cli::call::quoted(server))
}

/// A version of Claude Code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub [u32; 3]);

impl Version {
    /// Reads what `claude --version` says: `2.1.330 (Claude Code)`.
    fn read(said: &str) -> Option<Self> {
        let mut parts = said.split_whitespace().next()?.split('.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().ok()
        });
        Some(Self([parts.next()??, parts.next()??, parts.next()??]))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, patch]) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// Why the version of Claude Code is not known.
#[derive(Debug, thiserror::Error)]
pub enum VersionUnknown {
    /// It did not run.
    #[error(transparent)]
    Call(#[from] CallFailed),
    /// It said something else.
    #[error("`{} --version` says {said:?}, which is no version", path.display())]
    Said {
        /// The program.
        path: PathBuf,
        /// What it said.
        said: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        assert_eq!(Version::read("2.1.330 (Claude Code)\n"), Some(Version([2, 1, 330])));
        assert_eq!(Version::read("2.1.80-beta.1"), Some(OLDEST));
        assert!(Version([2, 1, 9]) < OLDEST && Version([3, 0, 0]) > OLDEST);
        for wrong in ["", "claude", "2.1", "v2.1.80", "2..80"] {
            assert_eq!(Version::read(wrong), None, "{wrong}");
        }
    }
}
