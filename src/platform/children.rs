//! Children of this process.

use std::io;
use tokio::signal::unix::{SignalKind, signal};

/// Lets this process wait for its children. Without it, that fails where the parent ignores SIGCHLD, which is inherited. Call it in the
/// runtime.
pub fn expect() -> io::Result<()> {
    signal(SignalKind::child()).map(drop) // the handler stays
}
