//! Qwen Code: how it is set up, what it passes to the programs that its sessions start, and its inbox.

#[cfg(feature = "cli")]
mod agent;
#[cfg(feature = "mcp")]
pub mod inbox;

#[cfg(feature = "cli")]
pub use agent::AGENT;

/// The environment variables with the path of the session's inbox, a token that shows who was started by the session, and the session's id.
#[cfg(feature = "mcp")]
pub const SOCKET: &str = "QWEN_CODE_MESSAGING_SOCKET";
#[cfg(feature = "mcp")]
const TOKEN: &str = "QWEN_CODE_MESSAGING_TOKEN";
#[cfg(feature = "mcp")]
pub const SESSION: &str = "QWEN_CODE_SESSION_ID";
