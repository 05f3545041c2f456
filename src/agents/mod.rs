//! One folder per coding agent: how it is recognised, where it keeps things, its hooks, how a text gets into a running session. And one
//! table of all MCP clients.

pub mod claude;
#[cfg(feature = "mcp")]
pub mod clients;
#[cfg(any(feature = "broker", feature = "cli", feature = "mcp"))]
pub mod shown;
