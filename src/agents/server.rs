//! An MCP server as an agent has it registered.

use crate::platform::call::quoted;
use serde_json::Value;
use std::path::{Path, PathBuf};

pub use super::names::SERVER as NAME;

const PROGRAM: &str = "claude-peers-mcp";

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
    Managed,
    User,
    /// This user's, in this project.
    Project(PathBuf),
    /// Everybody's in this project.
    Shared(PathBuf),
}

/// Whose an entry under our name is, seen from one copy of our programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It starts this copy.
    This,
    /// It starts a copy that is gone.
    Gone,
    /// It starts another copy.
    OtherCopy,
    /// It starts another program.
    Stranger,
}

impl Server {
    /// The server of an entry; none if it is no program. Other people's entries may be odd, so each is read as far as it can be.
    pub(super) fn of(scope: Scope, name: String, entry: &Value) -> Option<Self> {
        // Cline has a `transport` around it; OpenCode has one list of all words, and another name for the variables.
        let entry = if entry["transport"].is_object() { &entry["transport"] } else { entry };
        let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut words = match &entry["command"] {
            Value::Array(words) => words.iter().map(word).collect(),
            command => vec![command.as_str()?.to_owned()],
        };
        words.extend(match &entry["args"] {
            Value::Null => Vec::new(),
            Value::Array(words) => words.iter().map(word).collect(),
            odd => vec![word(odd)],
        });
        let variables = match entry.get("env").or(entry.get("environment")).unwrap_or(&Value::Null) {
            Value::Null => Vec::new(),
            Value::Object(env) => env.keys().cloned().collect(),
            _ => vec!["unreadable ones".to_owned()],
        };
        let mut words = words.into_iter();
        Some(Self { name, scope, command: words.next()?, arguments: words.collect(), variables })
    }

    /// The user's entry that starts `command`.
    pub fn registered(command: &Path) -> Self {
        let command = command.to_string_lossy().into_owned();
        Self { name: NAME.to_owned(), scope: Scope::User, command, arguments: Vec::new(), variables: Vec::new() }
    }

    /// Whether it is our program, whichever copy of it.
    pub fn is_ours(&self) -> bool {
        Path::new(&self.command).file_name().is_some_and(|name| name == PROGRAM)
    }

    /// Whether it starts this very program.
    pub fn starts(&self, program: &Path) -> bool {
        Path::new(&self.command) == program && self.arguments.is_empty()
    }

    /// Whether its program exists.
    pub fn runs(&self) -> bool {
        let path = Path::new(&self.command);
        // An agent looks up a bare name in its own search path, which may differ from ours.
        !path.is_absolute() || path.exists()
    }

    /// Whose it is, for the copy with the server `ours`.
    pub fn owner(&self, ours: &Path) -> Owner {
        let program = which::which(&self.command).map(|path| path.canonicalize().unwrap_or(path));
        match program {
            _ if !self.is_ours() => Owner::Stranger,
            Ok(program) if Path::new(&self.command) == ours || ours.canonicalize().is_ok_and(|ours| ours == program) => {
                Owner::This
            }
            Ok(_) => Owner::OtherCopy,
            Err(_) => Owner::Gone,
        }
    }

    pub fn command_line(&self) -> String {
        let words = std::iter::once(&self.command).chain(&self.arguments);
        words.map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}
