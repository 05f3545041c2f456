//! The program of an agent: where it is, which version, how it is called.

use super::places;
use crate::platform::{call::Call, paths, settings::InvalidSetting};
use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// A call may take this long: agents are large programs on disks that may be slow. OpenCode with a plugin waits more than a minute
/// for a network that is not there.
const PATIENCE: Duration = Duration::from_secs(100);

#[derive(Debug, Clone)]
pub struct Program {
    name: &'static str,
    pub path: PathBuf,
    /// The search path for it and for the node that runs it.
    search: OsString,
}

impl Program {
    /// Looks for it on `PATH` and in the places where installers put it: a service manager does not know the `PATH` of a login.
    pub fn find(name: &'static str) -> Result<Option<Self>, InvalidSetting> {
        let found = places::all()?.into_iter().map(|place| place.join(name)).find(|path| is_program(path));
        found.map(|path| Self::at(name, path)).transpose()
    }

    pub fn at(name: &'static str, path: PathBuf) -> Result<Self, InvalidSetting> {
        // The node beside it runs it, if it is a script of npm's.
        let beside = path.parent().map(PathBuf::from);
        let search = std::env::join_paths(beside.into_iter().chain(places::all()?)).unwrap_or_default();
        Ok(Self { name, path, search })
    }

    pub async fn version(&self) -> Result<Version, String> {
        let output = self.call(["--version"]).success().await.map_err(|error| error.to_string())?;
        // Pi writes it to standard error.
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).join("\n");
        Version::read(&said).ok_or_else(|| {
            let said: String = said.trim().chars().take(100).collect();
            format!("`{} --version` says {said:?}, which is no version", self.path.display())
        })
    }

    pub fn call<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Call {
        // This may run in a session of the agent, whose folder has settings of its own.
        let home = paths::home().unwrap_or_else(|_| "/".into());
        Call::new(self.name, &self.path, words, PATIENCE).env("PATH", &self.search).directory(home)
    }
}

pub fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub [u32; 3]);

impl Version {
    /// Finds the version in what a program says: `2.1.330 (Claude Code)`, `codex-cli 0.169.0`.
    fn read(said: &str) -> Option<Self> {
        let is_number = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
        let word = said.split_whitespace().find(is_number)?;
        let mut parts = word.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
        Some(Self([parts.next()??, parts.next()??, parts.next()??]))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, patch]) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}
