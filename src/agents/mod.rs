//! One folder or file per coding agent: how it is recognised, where it keeps things, its hooks, how a text gets into a running session.
//! And two tables: of all MCP clients, and of the agents that setup knows.

#[cfg(feature = "cli")]
pub mod agent;
#[cfg(any(feature = "cli", fuzzing))]
mod broker;
pub mod claude;
#[cfg(feature = "mcp")]
pub mod clients;
#[cfg(feature = "cli")]
mod cline;
#[cfg(any(feature = "broker", feature = "cli", feature = "mcp"))]
pub mod codex;
#[cfg(feature = "cli")]
mod copilot;
#[cfg(feature = "cli")]
pub mod files;
#[cfg(feature = "cli")]
mod folder;
#[cfg(feature = "cli")]
mod gemini;
#[cfg(feature = "cli")]
mod halves;
#[cfg(feature = "cli")]
pub mod hooks;
#[cfg(feature = "cli")]
pub mod known;
pub mod names;
#[cfg(feature = "cli")]
mod opencode;
#[cfg(feature = "cli")]
mod pi;
#[cfg(feature = "cli")]
mod places;
#[cfg(feature = "mcp")]
pub mod plugin;
#[cfg(feature = "cli")]
pub mod program;
#[cfg(any(feature = "cli", feature = "mcp"))]
pub mod qwen;
#[cfg(feature = "cli")]
pub mod server;
#[cfg(any(feature = "broker", feature = "cli", feature = "mcp"))]
pub mod shown;
#[cfg(any(feature = "broker", feature = "mcp"))]
pub mod socket;
#[cfg(feature = "cli")]
mod wake;

/// What became of a text behind a door: it is in the conversation that goes to the model, or the reason why it is not.
#[cfg(feature = "mcp")]
pub type Fate = Result<(), String>;
