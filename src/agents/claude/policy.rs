//! What keeps Claude Code from starting our MCP server though it is registered: an administrator's files, and lists in settings.
//!
//! Claude Code joins the lists of all settings: a server on a denylist never starts; if there is an allowlist, only those on it do.
//! Servers of an administrator need no place on it. (Tried with 2.1.330.)

use super::{
    files::{config_folder, read_json},
    managed::managed_settings,
    registrations::Registrations,
};
use crate::agents::server::{Scope, Server};
use serde_json::Value;
use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
};

const DENIED: &str = "deniedMcpServers";
const ALLOWED: &str = "allowedMcpServers";
const ALLOWED_BY_ADMINISTRATORS: &str = "allowManagedMcpServersOnly";
const PLUGINS_ONLY: &str = "strictPluginOnlyCustomization";

/// The key in a file that keeps our server from starting.
#[derive(Debug)]
pub struct Barrier {
    file: PathBuf,
    key: &'static str,
    is_managed: bool,
}

impl Barrier {
    pub fn help(&self) -> String {
        let Self { file, key, is_managed } = self;
        match is_managed {
            true => format!("ask your administrator to let it start: {} decides", file.display()),
            false => format!("change `{key}` in {}, unless you want it", file.display()),
        }
    }
}

impl fmt::Display for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (`{}`)", self.file.display(), self.key)
    }
}

/// A file of settings, as far as it can be understood: another check reports its errors.
#[derive(Debug, Clone)]
struct Source {
    file: PathBuf,
    is_managed: bool,
    settings: HashMap<String, Value>,
}

impl Source {
    fn read(file: PathBuf, is_managed: bool) -> Self {
        Self { settings: read_json(&file).unwrap_or_default(), file, is_managed }
    }

    fn get(&self, key: &str) -> &Value {
        self.settings.get(key).unwrap_or(&Value::Null)
    }

    /// The allowlist, if it has one. An administrator's that is no list counts as empty.
    fn allowed(&self) -> Option<&[Value]> {
        match self.get(ALLOWED) {
            Value::Array(list) => Some(list),
            Value::Null => None,
            _ => self.is_managed.then_some(&[]),
        }
    }

    fn wants_plugins_only(&self) -> bool {
        match self.get(PLUGINS_ONLY) {
            Value::Array(kinds) => kinds.iter().any(|kind| kind == "mcp"),
            all => *all == true,
        }
    }

    fn barrier(&self, key: &'static str) -> Barrier {
        Barrier { file: self.file.clone(), key, is_managed: self.is_managed }
    }
}

/// The settings that count in every session.
#[derive(Debug, Clone)]
pub struct Policy(Vec<Source>);

impl Policy {
    pub fn read() -> Self {
        let managed = managed_settings().into_iter().map(|file| Source::read(file, true));
        let users = config_folder().ok().map(|folder| Source::read(folder.join("settings.json"), false));
        Self(managed.chain(users).collect())
    }

    /// What keeps `server` from starting in every project.
    pub fn barrier(&self, all: &Registrations, server: &Server) -> Option<Barrier> {
        let exclusive = all.exclusive.as_ref().filter(|_| server.scope != Scope::Managed);
        let exclusive = exclusive.map(|file| Barrier { file: file.clone(), key: "mcpServers", is_managed: true });
        exclusive.or_else(|| forbids(&self.0, server))
    }

    /// What keeps `server` from starting in `project`, if nothing does everywhere.
    pub fn barrier_in(&self, project: &Path, server: &Server) -> Option<Barrier> {
        let files = ["settings.json", "settings.local.json"].map(|file| project.join(".claude").join(file));
        let theirs = files.map(|file| Source::read(file, false));
        forbids(&[&self.0[..], &theirs].concat(), server)
    }
}

fn forbids(sources: &[Source], server: &Server) -> Option<Barrier> {
    let is_command = |entry: &Value| entry["serverCommand"].as_array().is_some_and(|words| server.is_started_by(words));
    let is_denied = |entry: &Value| entry["serverName"] == *server.name || is_command(entry);
    let denies = |source: &&Source| source.get(DENIED).as_array().is_some_and(|list| list.iter().any(is_denied));
    if let Some(source) = sources.iter().find(denies) {
        return Some(source.barrier(DENIED));
    }
    if server.scope == Scope::Managed {
        return None;
    }
    let managed = || sources.iter().filter(|source| source.is_managed);
    if let Some(source) = managed().find(|source| source.wants_plugins_only()).filter(|_| !server.is_of_plugin()) {
        return Some(source.barrier(PLUGINS_ONLY));
    }
    let managed_only = managed().any(|source| *source.get(ALLOWED_BY_ADMINISTRATORS) == true);
    let counting = sources.iter().filter(|source| source.is_managed || !managed_only);
    let lists: Vec<_> = counting.filter_map(|source| Some((source, source.allowed()?))).collect();
    let entries = || lists.iter().flat_map(|(_, list)| *list);
    let has_commands = entries().any(|entry| entry["serverCommand"].is_array());
    // A name with other characters is no valid entry.
    let is_named = |entry: &Value| entry["serverName"] == *server.name && !server.is_of_plugin();
    let is_allowed = entries().any(|entry| if has_commands { is_command(entry) } else { is_named(entry) });
    let (source, _) = lists.first().filter(|_| !is_allowed)?;
    Some(source.barrier(ALLOWED))
}
