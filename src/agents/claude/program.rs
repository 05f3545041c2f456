//! The program `claude`: where it is, which version, and its own commands, by which its registrations change.

use super::places;
use crate::platform::{
    call::{Call, quoted},
    paths,
    settings::{self, InvalidSetting},
};
use std::{ffi::OsString, fmt, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

/// The name under which our MCP server is registered; Claude Code's channel flag says the same.
pub const NAME: &str = "claude-peers";
/// The oldest Claude Code that knows channels.
pub const OLDEST: Version = Version([2, 1, 80]);
/// The oldest Claude Code into which our hook is put: the first that tells a hook its process (`CLAUDE_PID`), without which ours
/// knows no session. Found by running a hook under the published programs: 2.1.212 does not set it, 2.1.213 does.
pub const OLDEST_WITH_HOOKS: Version = Version([2, 1, 213]);
/// The oldest Claude Code whose sessions have an inbox, through which messages come in by themselves.
pub const OLDEST_WITH_INBOX: Version = Version([2, 1, 224]);
/// The oldest whose sessions have one also with Bedrock, Vertex or Foundry, and where its feature flags are off.
pub const OLDEST_WITH_INBOX_ALWAYS: Version = Version([2, 1, 248]);
/// What it means that a session has no inbox.
pub const WITHOUT_INBOX: &str = "without a channel, messages come with a session's next call of one of our tools";
/// How long one call of `claude` may take: it is a large program that may be read from a slow disk for the first time.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Claude {
    pub path: PathBuf,
    /// The search path under which it and what it needs (node) are found.
    search: OsString,
}

impl Claude {
    /// Looks for it: where `CLAUDE_PEERS_CLAUDE` says, else in `PATH`, else in the places where installers put it. A service
    /// manager does not know the `PATH` of a login.
    pub fn find() -> Result<Option<Self>, InvalidSetting> {
        const VARIABLE: &str = "CLAUDE_PEERS_CLAUDE";
        let path = match settings::raw(VARIABLE).map(PathBuf::from) {
            Some(path) => {
                let runs = path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
                if !path.is_absolute() || !runs {
                    let allowed = "the absolute path of the program `claude`";
                    return Err(InvalidSetting::new(VARIABLE, path.to_string_lossy(), allowed));
                }
                path
            }
            None => {
                let search = std::env::join_paths(places::all()?).unwrap_or_default();
                // Found or not: the only errors are those of looking.
                let Ok(path) = which::which_in("claude", Some(search), "/") else { return Ok(None) };
                path
            }
        };
        // A script of npm's is run by the node beside it.
        let beside = path.parent().map(PathBuf::from);
        let search = std::env::join_paths(beside.into_iter().chain(places::all()?)).unwrap_or_default();
        Ok(Some(Self { path, search }))
    }

    pub async fn version(&self) -> Result<Version, String> {
        let said = self.call(["--version"]).run().await.map_err(|error| error.to_string())?;
        Version::read(&said).ok_or_else(|| {
            let said: String = said.trim().chars().take(100).collect();
            format!("`{} --version` says {said:?}, which is no version", self.path.display())
        })
    }

    pub fn register(&self, server: &str) -> Call {
        self.call(["mcp", "add", "--scope", "user", "--transport", "stdio", NAME, "--", server])
    }

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

pub fn by_hand(server: &str) -> String {
    format!("claude mcp add --scope user --transport stdio {NAME} -- {}", quoted(server))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub [u32; 3]);

impl Version {
    /// Reads what `claude --version` says: `2.1.330 (Claude Code)`.
    fn read(said: &str) -> Option<Self> {
        let digits = |part: &str| part.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
        let mut parts = said.split_whitespace().next()?.split('.').map(digits);
        Some(Self([parts.next()??, parts.next()??, parts.next()??]))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, patch]) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
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
