//! `claude-peers`: the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Claude Code runs hooks after every call of a tool: they do without all that the other commands need.
    let mut words = std::env::args_os().skip(1);
    match words.next() {
        Some(word) if word == "hook" => claude_peers::hook::run(words.next()),
        _ => claude_peers::cli::run().into(),
    }
}
