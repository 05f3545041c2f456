//! The program `claude`: its place, its version, and its commands that change registrations.

use crate::{
    agents::{
        names::CLAUDE,
        program::{Program, Version, is_program},
        server::NAME,
    },
    platform::{
        call::{Call, quoted},
        settings::{self, InvalidSetting},
    },
};
use std::path::PathBuf;

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
#[derive(Debug, Clone)]
pub struct Claude(pub Program);

impl Claude {
    /// Looks for it where `CLAUDE_PEERS_CLAUDE` says, else where programs of agents are.
    pub fn find() -> Result<Option<Self>, InvalidSetting> {
        let program = match settings::CLAUDE.set()?.map(PathBuf::from) {
            Some(path) if path.is_absolute() && is_program(&path) => Some(Program::at(CLAUDE.program, path)?),
            Some(path) => return Err(settings::CLAUDE.invalid(path)),
            None => Program::find(CLAUDE.program)?,
        };
        Ok(program.map(Self))
    }

    pub fn register(&self, server: &str) -> Call {
        self.0.call(["mcp", "add", "--scope", "user", "--transport", "stdio", NAME, "--", server])
    }

    pub fn deregister(&self) -> Call {
        self.0.call(["mcp", "remove", "--scope", "user", NAME])
    }
}

/// The command that registers the MCP server `server`, for people.
pub fn by_hand(server: &str) -> String {
    format!("claude mcp add --scope user --transport stdio {NAME} -- {}", quoted(server))
}
