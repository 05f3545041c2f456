//! Qwen Code: what it passes to the programs that its sessions start, and its inbox.

pub mod inbox;

/// The environment variables with the path of the session's inbox, a token that shows who was started by the session, and the session's id.
pub const SOCKET: &str = "QWEN_CODE_MESSAGING_SOCKET";
const TOKEN: &str = "QWEN_CODE_MESSAGING_TOKEN";
pub const SESSION: &str = "QWEN_CODE_SESSION_ID";
