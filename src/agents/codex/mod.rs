//! Codex: how it is set up, the daemon that runs the sessions, called threads, of its terminals, and whether a terminal is open.

#[cfg(feature = "cli")]
mod agent;
#[cfg(feature = "broker")]
pub mod attended;
#[cfg(feature = "mcp")]
mod context;
#[cfg(feature = "mcp")]
pub mod daemon;
#[cfg(any(feature = "broker", feature = "mcp"))]
mod home;
#[cfg(feature = "mcp")]
pub mod place;

#[cfg(feature = "cli")]
pub use agent::AGENT;
