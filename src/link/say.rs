//! What the program tells the user beside its results.

use std::io::Write;

/// Writes a line to standard error, so that standard output has results alone.
pub(in crate::link) fn say(text: &str) {
    // Nobody can be told that standard error is closed.
    drop(writeln!(std::io::stderr(), "{text}"));
}
