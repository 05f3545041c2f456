//! Claude Code: its program and version, its settings, the registration of our MCP server, our hook, its sessions' inbox.
//!
//! Promises: this module only reads Claude Code's files. Claude Code itself changes its registrations, through a call of its program;
//! setup writes the user's settings, for which there is no such call. A file that cannot be parsed is an error that names the file,
//! line and column.

pub mod activity;
#[cfg(feature = "cli")]
mod files;
#[cfg(feature = "cli")]
pub(super) mod hook;
pub mod inbox;
mod managed;
#[cfg(feature = "cli")]
mod policy;
#[cfg(feature = "cli")]
mod program;
#[cfg(any(feature = "cli", fuzzing))]
pub mod prompt_hook;
#[cfg(feature = "cli")]
mod registrations;
#[cfg(feature = "cli")]
mod user_settings;

pub use self::managed::managed_settings;
#[cfg(feature = "cli")]
pub use self::{
    files::{PLUGIN, has_plugin, hooks_forbidden_by},
    hook::{Installed, WITHOUT_HOOK},
    policy::{Barrier, Policy},
    program::*,
    registrations::Registrations,
    user_settings::{RULES, UserSettings, rule},
};
