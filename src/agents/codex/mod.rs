//! Codex: the daemon that runs the sessions, called threads, of its terminals, and whether a terminal is open.

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
