//! What Claude Code's own file says about MCP servers. It is read, never written.

use crate::{
    paths,
    settings::{self, InvalidSetting},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The file name of our MCP server.
const PROGRAM: &str = "claude-peers-mcp";

/// The MCP servers that Claude Code starts by itself, from the user's own file.
#[derive(Debug, Clone)]
pub struct Registrations {
    /// The file.
    pub file: PathBuf,
    /// The servers that are programs of this machine.
    pub servers: Vec<Server>,
}

/// A registered MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The name it is registered under.
    pub name: String,
    /// Where it counts.
    pub scope: Scope,
    /// The program.
    pub command: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The names of the variables it is given; their values may be secrets.
    pub variables: Vec<String>,
}

/// Where a registration counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// In all projects.
    User,
    /// In this one.
    Project(PathBuf),
}

/// Why Claude Code's file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It could not be found out where it is.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// The system did not let it be read.
    #[error("reading {}: {source}", file.display())]
    System {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what Claude Code writes.
    #[error("{}, line {}, column {}: {}", file.display(), source.line(), source.column(), reason(source))]
    Broken {
        /// The file.
        file: PathBuf,
        /// What is wrong in it, and where.
        source: serde_json::Error,
    },
}

/// The error without its place, which is said already.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    mcp_servers: Option<BTreeMap<String, Entry>>,
    projects: Option<BTreeMap<PathBuf, Project>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Project {
    mcp_servers: Option<BTreeMap<String, Entry>>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    /// None for a server that is reached by an address.
    command: Option<String>,
    args: Option<Vec<String>>,
    env: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

impl Registrations {
    /// Reads them; a file that is not there holds none.
    ///
    /// # Errors
    /// If the file cannot be read or understood.
    pub fn read() -> Result<Self, Unreadable> {
        let file = file()?;
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self { file, servers: Vec::new() }),
            Err(source) => return Err(Unreadable::System { file, source }),
        };
        match parse(&text) {
            Ok(servers) => Ok(Self { file, servers }),
            Err(source) => Err(Unreadable::Broken { file, source }),
        }
    }

    /// The entry under our name that counts in all projects.
    pub fn own(&self) -> Option<&Server> {
        self.servers.iter().find(|server| server.name == super::NAME && server.scope == Scope::User)
    }

    /// Other entries that start our program: under another name, or for one project only.
    pub fn others(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.is_ours() && !(server.name == super::NAME && server.scope == Scope::User))
    }
}

impl Server {
    /// Whether it is our program, whichever copy of it.
    pub fn is_ours(&self) -> bool {
        Path::new(&self.command).file_name().is_some_and(|name| name == PROGRAM)
    }

    /// Whether it starts just this program.
    pub fn starts(&self, program: &Path) -> bool {
        Path::new(&self.command) == program && self.arguments.is_empty()
    }

    /// Its command line.
    pub fn command_line(&self) -> String {
        let words: Vec<_> =
            std::iter::once(&self.command).chain(&self.arguments).map(|word| crate::cli::call::quoted(word)).collect();
        words.join(" ")
    }
}

/// Claude Code's file: beside its other files where `CLAUDE_CONFIG_DIR` moves them, else in the home directory. Very old
/// installations have it elsewhere, and it stays there.
fn file() -> Result<PathBuf, InvalidSetting> {
    let home = paths::home()?;
    let moved = settings::raw("CLAUDE_CONFIG_DIR").map(PathBuf::from);
    let old = moved.clone().unwrap_or_else(|| home.join(".claude")).join(".config.json");
    if old.exists() {
        return Ok(old);
    }
    Ok(moved.unwrap_or(home).join(".claude.json"))
}

fn parse(text: &[u8]) -> serde_json::Result<Vec<Server>> {
    // Claude Code reads past a byte order mark, and some editors write one.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let File { mcp_servers, projects } = serde_json::from_slice(text)?;
    let user = mcp_servers.into_iter().flatten().map(|entry| (Scope::User, entry));
    let local = projects.into_iter().flatten().flat_map(|(path, project)| {
        project.mcp_servers.into_iter().flatten().map(move |entry| (Scope::Project(path.clone()), entry))
    });
    let server = |(scope, (name, entry)): (Scope, (String, Entry))| {
        let (arguments, variables) = (entry.args.unwrap_or_default(), entry.env.unwrap_or_default().into_keys().collect());
        Some(Server { name, scope, command: entry.command?, arguments, variables })
    };
    Ok(user.chain(local).filter_map(server).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Registrations {
        Registrations { file: PathBuf::new(), servers: parse(text.as_bytes()).expect("understood") }
    }

    #[test]
    fn every_registration_of_ours_is_found() {
        let found = read(
            r#"{"numStartups": 3, "other": [null], "mcpServers": {
                "claude-peers": {"type": "stdio", "command": "/usr/bin/claude-peers-mcp", "args": [], "env": {"A": "b"}},
                "peers": {"command": "/opt/claude-peers-mcp"},
                "docs": {"type": "http", "args": null, "url": "https://example.org/mcp"}},
              "projects": {"/src/x": {"allowedTools": [], "mcpServers": {"claude-peers": {"command": "claude-peers-mcp"}}}}}"#,
        );
        let own = found.own().expect("registered");
        assert!(own.starts(Path::new("/usr/bin/claude-peers-mcp")) && !own.starts(Path::new("/opt/claude-peers-mcp")));
        assert_eq!(own.variables, ["A"]);
        let others: Vec<_> = found.others().map(|server| (server.name.as_str(), server.scope.clone())).collect();
        assert_eq!(others, [("peers", Scope::User), ("claude-peers", Scope::Project("/src/x".into()))]);
    }

    #[test]
    fn a_file_that_cannot_be_understood_says_where() {
        for (text, place) in
            [("{\n  \"a\": 1,\n  b\n}", "x, line 3, column 3: "), ("{\"mcpServers\": [1]}", "x, line 1, column 15: ")]
        {
            let error = Unreadable::Broken { file: "x".into(), source: parse(text.as_bytes()).expect_err("broken") }.to_string();
            assert!(error.starts_with(place) && !error.ends_with(|c: char| c.is_ascii_digit()), "{error}");
        }
        assert!(parse(b"\xef\xbb\xbf{}").expect("understood").is_empty());
    }
}
