//! Codex: the daemon that runs the sessions, called threads, of its terminals.

mod context;
pub mod daemon;
pub mod place;
