//! Short log lines on stderr, which Claude Code keeps in its MCP log. They never contain a secret or a message's text.

use crate::wire::text::printable_line;
use std::{fmt::Arguments, io::Write};

pub fn line(line: Arguments<'_>) {
    // One write keeps the line whole. A failed write has nowhere to be reported.
    let line = line.to_string();
    let _ = std::io::stderr().write_all(format!("claude-peers-mcp: {}\n", printable_line(&line)).as_bytes());
}

/// Writes one line, formatted like `format!`.
macro_rules! log {
    ($($arg:tt)*) => { $crate::session::log::line(format_args!($($arg)*)) };
}
pub(super) use log;
