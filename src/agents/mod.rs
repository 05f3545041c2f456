//! One folder per coding agent: how it is recognised, where it keeps things, its hooks, how a text gets into a running session.

pub mod claude;
#[cfg(any(feature = "broker", feature = "cli", feature = "mcp"))]
pub mod shown;
