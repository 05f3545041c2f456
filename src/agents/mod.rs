//! One folder per coding agent: how it is recognised, where it keeps things, its hooks, how a text gets into a running session. And one
//! table of all MCP clients.

pub mod claude;
#[cfg(feature = "mcp")]
pub mod clients;
#[cfg(feature = "mcp")]
pub mod codex;
#[cfg(feature = "mcp")]
pub mod plugin;
#[cfg(feature = "mcp")]
pub mod qwen;
#[cfg(any(feature = "broker", feature = "cli", feature = "mcp"))]
pub mod shown;
#[cfg(any(feature = "broker", feature = "mcp"))]
pub mod socket;

/// The name under which agents know our MCP server. Under another one its channel and Codex's door do not work.
#[cfg(feature = "mcp")]
pub const SERVER: &str = "claude-peers";

/// What became of a text behind a door: it is in the conversation that goes to the model, or the reason why it is not.
#[cfg(feature = "mcp")]
pub type Fate = Result<(), String>;
