//! What setup and doctor need to know of a coding agent: its program, its folder, how it registers an MCP server, and the files of ours
//! that it reads.
//!
//! Promises: nothing here changes a file. An agent registers our server itself, through a call of its program.

use super::{
    files::{Unreadable, edit, parse_lenient, parse_toml, read},
    folder,
    hooks::Hooks,
    names::{NOBODY, Name},
    program::Program,
    server::{NAME, Scope, Server},
    wake::Wake,
};
use crate::platform::{call::Call, settings::InvalidSetting};
use serde_json::Value;
use std::path::{Path, PathBuf};

pub struct Agent {
    pub name: Name,
    pub title: &'static str,
    /// Another program has the same name. Its folder or the package must show which it is.
    pub is_ambiguous: bool,
    /// The folder of its configuration: its place in the home directory; the variable that moves it, and what follows the variable's value
    /// in the path.
    pub folder: [&'static str; 3],
    pub mcp: Option<Mcp>,
    pub plugin: Option<Plugin>,
    pub hooks: Option<Hooks>,
    /// How messages arrive.
    pub arrival: &'static str,
    /// The settings with which the user lets the end of a background command wake an idle session.
    pub wake: Option<&'static Wake>,
}

/// How it registers MCP servers.
pub struct Mcp {
    /// The files in its folder that may have them, JSON or TOML. The first counts most.
    pub files: &'static [&'static str],
    /// The table of servers in them.
    pub key: &'static str,
    /// The words that register a server; its path follows.
    pub add: &'static [&'static str],
    /// The words that remove ours. None if it has no such command.
    pub remove: Option<&'static [&'static str]>,
    /// What else the user should know.
    pub note: Option<&'static str>,
}

/// One of our files that it runs.
pub struct Plugin {
    /// Its place in the agent's folder.
    pub file: &'static str,
    /// Its text, with [`DOOR`] in place of what all plugins share, and [`SERVER`] in place of the path of our server.
    pub source: &'static str,
    /// What the user must do to have it run.
    pub needs: Option<&'static str>,
}

/// An agent's entry for our server, and the file that has it or would get it.
pub struct Registration {
    pub file: PathBuf,
    pub entry: Option<Server>,
}

/// Stands in a plugin for what all of them share: how they listen, and speak with our server.
const DOOR: &str = "// @DOOR@\n";
/// Stands in a plugin, with its quotation marks, for the path of our server.
const SERVER: &str = "\"@SERVER@\"";

impl Agent {
    /// An agent of which nothing is known.
    pub const PLAIN: Self = Self {
        name: NOBODY,
        title: "",
        is_ambiguous: false,
        folder: [""; 3],
        mcp: None,
        plugin: None,
        hooks: None,
        arrival: "with the results of our tools",
        wake: None,
    };

    pub fn folder(&self) -> Result<PathBuf, InvalidSetting> {
        folder::of(self.folder)
    }

    /// Whether the user has turned on that the end of a background command wakes an idle session; none if it cannot be turned on.
    pub fn wake_is_on(&self) -> Option<Result<bool, Unreadable>> {
        self.wake.map(Wake::is_on)
    }

    /// Its program, if it is installed.
    pub fn program(&self) -> Result<Option<Program>, InvalidSetting> {
        let folder = self.folder()?;
        let comes_from = |path: PathBuf| path.to_string_lossy().contains(self.name.package);
        let is_it =
            |program: &Program| !self.is_ambiguous || folder.is_dir() || program.path.canonicalize().is_ok_and(comes_from);
        Ok(Program::find(self.name.program)?.filter(is_it))
    }

    /// Its entry for our server.
    pub fn registration(&self, mcp: &Mcp) -> Result<Registration, Unreadable> {
        let files = self.texts(mcp)?;
        let mut at = self.folder()?.join(mcp.files[0]);
        for (file, text) in files {
            let is_toml = file.extension().is_some_and(|extension| extension == "toml");
            let all: Value = if is_toml { parse_toml(&file, &text)? } else { parse_lenient(&file, &text)? };
            if let Some(entry) = Server::of(Scope::User, NAME.to_owned(), &all[mcp.key][NAME]) {
                return Ok(Registration { file, entry: Some(entry) });
            }
            at = file;
        }
        Ok(Registration { file: at, entry: None })
    }

    /// Those of its files that exist, with their texts.
    pub fn texts(&self, mcp: &Mcp) -> Result<Vec<(PathBuf, String)>, Unreadable> {
        let folder = self.folder()?;
        let read = |file: &&str| {
            let file = folder.join(file);
            read(&file).map(|text| text.map(|text| (file, text))).transpose()
        };
        mcp.files.iter().filter_map(read).collect()
    }
}

impl Mcp {
    /// What most have in common.
    pub const PLAIN: Self = Self {
        files: &[],
        key: "mcpServers",
        add: &["mcp", "add", NAME, "--"],
        remove: Some(&["mcp", "remove", NAME]),
        note: None,
    };
    /// What Gemini CLI and its descendants have in common.
    pub const TRUSTED: Self = Self {
        add: &["mcp", "add", "--scope", "user", "--trust", NAME],
        remove: Some(&["mcp", "remove", "--scope", "user", NAME]),
        ..Self::PLAIN
    };

    pub fn register(&self, program: &Program, server: &str) -> Call {
        program.call(self.add.iter().copied().chain([server]))
    }

    pub fn deregister(&self, program: &Program) -> Option<Call> {
        self.remove.map(|words| program.call(words))
    }

    /// The text of a JSON file of its agent without our entry; none if there is nothing to remove.
    pub fn without_ours(&self, text: &str) -> Option<String> {
        edit(text, |root| {
            root.object_value()?.object_value(self.key)?.get(NAME)?.remove();
            Some(())
        })
    }
}

impl Plugin {
    /// Its text, for the server at `path`.
    pub fn text(&self, path: &Path) -> String {
        let whole = self.source.replace(DOOR, include_str!("door.js"));
        whole.replace(SERVER, &Value::from(path.to_string_lossy()).to_string())
    }
}
