//! The MCP servers that are registered in Claude Code's own file.

use super::{
    files::{Unreadable, moved, parse, read},
    program::NAME,
};
use crate::platform::{call::quoted, paths, settings::InvalidSetting};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

const PROGRAM: &str = "claude-peers-mcp";

#[derive(Debug, Clone)]
pub struct Registrations {
    pub file: PathBuf,
    /// Those that are programs on this machine.
    pub servers: Vec<Server>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub name: String,
    pub scope: Scope,
    pub command: String,
    pub arguments: Vec<String>,
    /// The names of its environment variables. Their values may be secrets.
    pub variables: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    User,
    Project(PathBuf),
}

/// The file, and each project in it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Known {
    mcp_servers: Option<BTreeMap<String, Value>>,
    projects: Option<BTreeMap<PathBuf, Option<Known>>>,
}

impl Registrations {
    pub fn read() -> Result<Self, Unreadable> {
        let file = file()?;
        let Known { mcp_servers, projects } = read(&file)?.map_or_else(|| Ok(Known::default()), |text| parse(&file, &text))?;
        let user = mcp_servers.into_iter().flatten().map(|entry| (Scope::User, entry));
        let local = projects.into_iter().flatten().flat_map(|(path, project)| {
            let servers = project.and_then(|project| project.mcp_servers).into_iter().flatten();
            servers.map(move |entry| (Scope::Project(path.clone()), entry))
        });
        let servers = user.chain(local).filter_map(|(scope, (name, entry))| Server::of(scope, name, &entry)).collect();
        Ok(Self { file, servers })
    }

    /// The entry under our name that counts in all projects.
    pub fn own(&self) -> Option<&Server> {
        self.servers.iter().find(|server| server.is_own())
    }

    /// Other entries that start our program: under another name, or for one project only.
    pub fn others(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.is_ours() && !server.is_own())
    }
}

impl Server {
    /// The server of an entry; none if it is no program. Other people's entries may be odd, so each is read as far as it can be.
    fn of(scope: Scope, name: String, entry: &Value) -> Option<Self> {
        let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let arguments = match &entry["args"] {
            Value::Null => Vec::new(),
            Value::Array(words) => words.iter().map(word).collect(),
            odd => vec![word(odd)],
        };
        let variables = match &entry["env"] {
            Value::Null => Vec::new(),
            Value::Object(env) => env.keys().cloned().collect(),
            _ => vec!["unreadable ones".to_owned()],
        };
        Some(Self { name, scope, command: entry["command"].as_str()?.to_owned(), arguments, variables })
    }

    fn is_own(&self) -> bool {
        self.name == NAME && self.scope == Scope::User
    }

    /// Whether it is our program, whichever copy of it.
    pub fn is_ours(&self) -> bool {
        Path::new(&self.command).file_name().is_some_and(|name| name == PROGRAM)
    }

    /// Whether it starts this very program.
    pub fn starts(&self, program: &Path) -> bool {
        Path::new(&self.command) == program && self.arguments.is_empty()
    }

    pub fn command_line(&self) -> String {
        let words = std::iter::once(&self.command).chain(&self.arguments);
        words.map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

/// Claude Code's file: beside its other files where `CLAUDE_CONFIG_DIR` moves them, else in the home directory. Claude Code leaves it
/// where very old versions put it.
fn file() -> Result<PathBuf, InvalidSetting> {
    let (home, moved) = (paths::home()?, moved());
    let old = moved.clone().unwrap_or_else(|| home.join(".claude")).join(".config.json");
    if old.exists() {
        return Ok(old);
    }
    Ok(moved.unwrap_or(home).join(".claude.json"))
}
