//! `claude-peers`: the command line.

use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    // Claude Code runs the hook at every prompt, so it skips everything that only the other commands need.
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    match words.split_first() {
        Some((word, rest)) if word == "hook" && !rest.iter().any(|word| word == "--help" || word == "-h") => {
            claude_peers::prompt_hook::run(rest)
        }
        _ => claude_peers::cli::run(),
    }
}
