//! The MCP servers that are registered in Claude Code's own file.

use super::{
    files::{Unreadable, moved, read_json},
    program::NAME,
};
use crate::platform::{call::quoted, paths, settings::InvalidSetting};
use serde_json::Value;
use std::path::{Path, PathBuf};

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

impl Registrations {
    pub fn read() -> Result<Self, Unreadable> {
        let file = file()?;
        let known: Value = read_json(&file)?;
        let projects = known["projects"].as_object().into_iter().flatten();
        let projects = projects.flat_map(|(path, project)| servers(project, &Scope::Project(path.into())));
        let servers = servers(&known, &Scope::User).into_iter().chain(projects).collect();
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

/// The servers of the file or of a project in it. Claude Code accepts odd entries, so they are read as far as they can be.
fn servers(of: &Value, scope: &Scope) -> Vec<Server> {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let server = |(name, entry): (&String, &Value)| {
        let arguments = match &entry["args"] {
            Value::Null => Vec::new(),
            Value::Array(words) => words.iter().map(word).collect(),
            odd => vec![word(odd)],
        };
        let variables = entry["env"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
        // A server that has an address has no command.
        let command = entry["command"].as_str()?.to_owned();
        Some(Server { name: name.clone(), scope: scope.clone(), command, arguments, variables })
    };
    of["mcpServers"].as_object().into_iter().flatten().filter_map(server).collect()
}
