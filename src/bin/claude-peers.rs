//! `claude-peers`: the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Claude Code runs hooks after every call of a tool: they do without all that the other commands need.
    let mut words = std::env::args_os().skip(1);
    match (words.next(), words.next()) {
        (Some(word), Some(event)) if word == "hook" && event != "--help" && event != "-h" => claude_peers::hook::run(event),
        _ => claude_peers::cli::run().into(),
    }
}
