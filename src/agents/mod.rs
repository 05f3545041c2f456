//! Coding agents: how each is recognised, where it keeps things, its hooks, how a text gets into a running session.
//!
//! Two tables have what can be said in a row: all MCP clients, and the agents that setup knows. A folder per agent has the rest.

#[cfg(feature = "cli")]
pub mod agent;
#[cfg(any(feature = "cli", fuzzing))]
mod broker;
pub mod claude;
#[cfg(feature = "mcp")]
pub mod clients;
#[cfg(any(feature = "broker", feature = "mcp"))]
pub mod codex;
#[cfg(feature = "cli")]
pub mod files;
#[cfg(feature = "cli")]
mod folder;
#[cfg(feature = "cli")]
mod gemini;
mod halves;
#[cfg(feature = "cli")]
pub mod hooks;
#[cfg(feature = "cli")]
pub mod known;
pub mod names;
#[cfg(feature = "cli")]
mod places;
#[cfg(feature = "mcp")]
pub mod plugin;
#[cfg(feature = "cli")]
pub mod program;
#[cfg(feature = "mcp")]
pub mod qwen;
#[cfg(feature = "cli")]
pub mod server;
pub mod shown;
#[cfg(any(feature = "broker", feature = "mcp"))]
pub mod socket;
#[cfg(feature = "cli")]
mod wake;

/// What became of a text behind a door: it is in the conversation that goes to the model, or the reason why it is not.
#[cfg(feature = "mcp")]
pub type Fate = Result<(), String>;
