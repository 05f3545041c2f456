//! Claude Code: where it is, which version, its settings, its registration of our MCP server, its hook, its sessions' inbox.
//!
//! Promises: Claude Code's files are only read here. What changes its registrations is Claude Code itself, through a call of its
//! program; its settings, which nothing else writes, setup does. A file that cannot be understood is an error that names it with line
//! and column.

#[cfg(feature = "cli")]
mod files;
#[cfg(feature = "cli")]
mod hook;
#[cfg(any(feature = "broker", feature = "mcp"))]
pub mod inbox;
#[cfg(feature = "cli")]
mod places;
#[cfg(feature = "cli")]
mod program;
#[cfg(feature = "cli")]
pub mod prompt_hook;
#[cfg(feature = "cli")]
mod registrations;
#[cfg(feature = "cli")]
mod user_settings;

#[cfg(feature = "cli")]
pub use self::{
    files::{PLUGIN, Unreadable, has_plugin, hooks_forbidden_by},
    hook::{Installed, WITHOUT_HOOK},
    program::*,
    registrations::{Registrations, Scope, Server},
    user_settings::{Allowed, RULES, UserSettings, rule},
};
