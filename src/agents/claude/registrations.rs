//! The MCP servers that are registered in Claude Code's own file.

use super::{
    files::{moved, read_json},
    managed::exclusive_servers,
};
use crate::{
    agents::{
        files::{Unreadable, parse, read},
        server::{NAME, Scope, Server},
    },
    platform::{paths, settings::InvalidSetting},
};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The server of our plugin, as Claude Code names it.
const OF_PLUGIN: &str = "plugin:peers:claude-peers";

#[derive(Debug, Clone)]
pub struct Registrations {
    pub file: PathBuf,
    /// Those that are programs on this machine.
    pub servers: Vec<Server>,
    /// The file in which an administrator lists the only servers that are started.
    pub exclusive: Option<PathBuf>,
    /// The known projects, each with the names of the servers that the user has switched off there.
    pub projects: BTreeMap<PathBuf, Value>,
}

/// The file, and each project in it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Known {
    mcp_servers: Option<BTreeMap<String, Value>>,
    disabled_mcp_servers: Value,
    projects: Option<BTreeMap<PathBuf, Option<Known>>>,
}

impl Registrations {
    pub fn read() -> Result<Self, Unreadable> {
        let file = file()?;
        let Known { mcp_servers, projects, .. } =
            read(&file)?.map_or_else(|| Ok(Known::default()), |text| parse(&file, &text))?;
        let exclusive = exclusive_servers();
        let managed = exclusive.as_deref().and_then(|file| read_json::<Known>(file).ok()?.mcp_servers);
        let mut servers: Vec<_> = Server::all(Scope::Managed, managed).chain(Server::all(Scope::User, mcp_servers)).collect();
        let mut known = BTreeMap::new();
        for (path, project) in projects.into_iter().flatten() {
            let Known { mcp_servers, disabled_mcp_servers, .. } = project.unwrap_or_default();
            servers.extend(Server::all(Scope::Project(path.clone()), mcp_servers));
            known.insert(path, disabled_mcp_servers);
        }
        Ok(Self { file, servers, exclusive, projects: known })
    }

    /// The entry under our name that counts in all projects.
    pub fn own(&self) -> Option<&Server> {
        if self.exclusive.is_some() { self.under_our_name(&Scope::Managed) } else { self.of_user() }
    }

    /// The user's entry under our name.
    pub fn of_user(&self) -> Option<&Server> {
        self.under_our_name(&Scope::User)
    }

    fn under_our_name(&self, scope: &Scope) -> Option<&Server> {
        self.servers.iter().find(|server| server.name == NAME && server.scope == *scope)
    }

    /// Whether the user has switched `server` off in `project`.
    pub fn is_off(&self, server: &Server, project: &Path) -> bool {
        let names = self.projects.get(project).and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|name| *name == *server.name))
    }

    /// Another program that sessions in `project` start in place of ours, and the file that says so.
    pub fn in_place_of_ours(&self, project: &Path) -> Option<(Server, PathBuf)> {
        let file = project.join(".mcp.json");
        let shared = read_json::<Known>(&file).unwrap_or_default().mcp_servers;
        let shared = Server::all(Scope::Shared(project.to_owned()), shared).map(|server| (server, file.clone()));
        let local = self.servers.iter().filter(|server| server.scope == Scope::Project(project.to_owned()));
        let mut all = local.map(|server| (server.clone(), self.file.clone())).chain(shared);
        all.find(|(server, _)| server.name == NAME && !server.is_ours()).filter(|_| self.exclusive.is_none())
    }

    /// Other entries that start our program: under another name, or for one project only.
    pub fn others(&self) -> impl Iterator<Item = &Server> {
        let is_other = |server: &&Server| server.is_ours() && !(server.name == NAME && server.scope == Scope::User);
        self.servers.iter().filter(is_other).filter(|_| self.exclusive.is_none())
    }
}

impl Server {
    fn all(scope: Scope, entries: Option<BTreeMap<String, Value>>) -> impl Iterator<Item = Self> {
        entries.into_iter().flatten().filter_map(move |(name, entry)| Self::of(scope.clone(), name, &entry))
    }

    /// The server that our plugin brings.
    pub fn of_plugin() -> Option<Self> {
        let file: Known = serde_json::from_str(include_str!("../../../packaging/plugin/peers/.mcp.json")).ok()?;
        Self::all(Scope::User, file.mcp_servers).next().map(|server| Self { name: OF_PLUGIN.to_owned(), ..server })
    }

    pub fn is_of_plugin(&self) -> bool {
        self.name == OF_PLUGIN
    }

    /// Whether these words of a list start it.
    pub fn is_started_by(&self, words: &[Value]) -> bool {
        let words = words.iter().map(|word| word.as_str().map(expanded));
        words.eq(std::iter::once(&self.command).chain(&self.arguments).map(|word| Some(expanded(word))))
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

/// Replaces `${NAME}` and `${NAME:-default}` as Claude Code does.
fn expanded(word: &str) -> String {
    let mut parts = word.split("${");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let Some((name, rest)) = part.split_once('}') else { return word.to_owned() };
        let (name, default) = name.split_once(":-").map_or((name, None), |(name, default)| (name, Some(default.to_owned())));
        whole += &std::env::var(name).ok().or(default).unwrap_or_else(|| format!("${{{name}}}"));
        whole += rest;
    }
    whole
}
