//! The program `claude`: its place, its version, and its commands that change registrations.

use super::places;
use crate::platform::{
    call::{Call, quoted},
    paths,
    settings::{self, InvalidSetting},
};
use std::{
    ffi::OsString,
    fmt,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// The name under which our MCP server is registered. Claude Code's channel flag must say the same.
pub const NAME: &str = "claude-peers";
/// The oldest Claude Code with channels.
pub const OLDEST: Version = Version([2, 1, 80]);
/// The oldest Claude Code that gets our hook: the first that sets `CLAUDE_PID`, by which the hook knows its session. (Tried with the
/// published programs: 2.1.212 does not set it, 2.1.213 does.)
pub const OLDEST_WITH_HOOKS: Version = Version([2, 1, 213]);
/// The oldest Claude Code whose sessions have an inbox.
pub const OLDEST_WITH_INBOX: Version = Version([2, 1, 224]);
/// The oldest whose sessions have one also with Bedrock, Vertex or Foundry, or with feature flags off.
pub const OLDEST_WITH_INBOX_ALWAYS: Version = Version([2, 1, 248]);
pub const WITHOUT_INBOX: &str = "without a channel, messages come with a session's next call of one of our tools";
/// A call of `claude` may take this long: it is a large program on a disk that may be slow.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Claude {
    pub path: PathBuf,
    /// The search path for it and for the node that runs it.
    search: OsString,
}

impl Claude {
    /// Looks for it where `CLAUDE_PEERS_CLAUDE` says, else on `PATH` and in the places where installers put it: a service manager
    /// does not know the `PATH` of a login.
    pub fn find() -> Result<Option<Self>, InvalidSetting> {
        let places = places::all()?;
        let path = match settings::CLAUDE.set()?.map(PathBuf::from) {
            Some(path) if path.is_absolute() && is_program(&path) => path,
            Some(path) => return Err(settings::CLAUDE.invalid(path)),
            None => match places.iter().map(|place| place.join("claude")).find(|path| is_program(path)) {
                Some(path) => path,
                None => return Ok(None),
            },
        };
        // The node beside it runs it, if it is a script of npm's.
        let beside = path.parent().map(PathBuf::from);
        let search = std::env::join_paths(beside.into_iter().chain(places)).unwrap_or_default();
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
        // This may run in a session of Claude Code, whose folder has settings of its own.
        Call::new("claude", &self.path, words, PATIENCE)
            .env("PATH", &self.search)
            .directory(paths::home().unwrap_or_else(|_| "/".into()))
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The command that registers the MCP server `server`, for people.
pub fn by_hand(server: &str) -> String {
    format!("claude mcp add --scope user --transport stdio {NAME} -- {}", quoted(server))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 3]);

impl Version {
    /// Parses the output of `claude --version`: `2.1.330 (Claude Code)`.
    fn read(said: &str) -> Option<Self> {
        let mut parts = said.split_whitespace().next()?.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
        Some(Self([parts.next()??, parts.next()??, parts.next()??]))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, patch]) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}
