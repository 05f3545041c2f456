//! Codex: how it is set up, and the daemon that runs the sessions, called threads, of its terminals.

#[cfg(feature = "cli")]
mod agent;
#[cfg(feature = "mcp")]
mod context;
#[cfg(feature = "mcp")]
pub mod daemon;
#[cfg(feature = "mcp")]
pub mod place;

#[cfg(feature = "cli")]
pub use agent::AGENT;
