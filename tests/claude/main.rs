//! Real Claude Code sessions with our MCP server, their own broker and a stand-in model on loopback.
//!
//! The tests need tmux, npm (once) and namespaces. If something is missing, they are skipped with a message, unless
//! `CLAUDE_PEERS_CLAUDE_TESTS=required`. Tests wait for events, such as a request to the model or a change of a session's status
//! file; timeouts only make a broken build fail.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

mod alone;
mod ask;
mod busy;
mod channel;
mod controls;
mod conversations;
mod embedded;
mod inbox;
mod life;
mod mail;
#[allow(dead_code, reason = "shared with the benchmark")]
mod model;
mod plugin;
mod policy;
mod program;
mod script;
mod session;
#[path = "../suite/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other tests")]
mod support;
mod tools;
mod who;
mod worktree;
mod world;

use libtest_mimic::{Arguments, Trial};
use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// A test that runs this Claude Code.
type Test = fn(&Path);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let mut tests = vec![busy::TESTS, tools::TESTS, mail::TESTS, channel::TESTS, inbox::TESTS, ask::TESTS]; // the longest first
    tests.extend([
        conversations::TESTS,
        life::TESTS,
        script::TESTS,
        plugin::TESTS,
        policy::TESTS,
        controls::TESTS,
        who::TESTS,
        embedded::TESTS,
        worktree::TESTS,
    ]);
    let tests: Vec<(&str, Test)> = tests.concat();
    let claude = if arguments.list { Err("only listed".to_owned()) } else { prepare() };
    let trials = match claude {
        Ok(claude) => {
            let trial = |(name, test): (&str, Test)| {
                let claude = claude.clone();
                Trial::test(name, move || {
                    test(&claude);
                    Ok(())
                })
            };
            tests.into_iter().map(trial).collect()
        }
        Err(missing) => {
            if std::env::var_os("CLAUDE_PEERS_CLAUDE_TESTS").is_some_and(|value| value == "required") {
                eprintln!("the tests with a real Claude Code must run, but: {missing}");
                return ExitCode::FAILURE;
            }
            eprintln!("SKIPPED: all tests with a real Claude Code: {missing}");
            tests.into_iter().map(|(name, _)| Trial::test(name, || Ok(())).with_ignored_flag(true)).collect()
        }
    };
    // Every session is a large process.
    arguments.test_threads.get_or_insert(3);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Installs Claude Code if needed, then moves into the namespaces, which have no network.
fn prepare() -> Result<PathBuf, String> {
    if Command::new("tmux").arg("-V").output().is_err() {
        return Err("tmux is not installed".to_owned());
    }
    let claude = program::installed()?.ok_or("npm is not installed")?;
    if !alone::is() {
        match alone::become_so()? {}
    }
    Ok(claude)
}
