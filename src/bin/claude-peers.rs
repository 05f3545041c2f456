//! `claude-peers`: the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    claude_peers::cli::run().into()
}
