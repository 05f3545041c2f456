//! Real coding agents other than Claude Code with our MCP server, their own broker and a stand-in model on loopback.
//!
//! The tests need npm (once) and namespaces. If something is missing, they are skipped with a message, unless
//! `CLAUDE_PEERS_AGENTS_TESTS=required`. The agents run without a terminal and end by themselves, so the tests wait for their end.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

mod agents;
#[path = "../claude/alone.rs"]
mod alone;
mod between;
mod calls;
mod codex;
mod doorbell;
mod doors;
mod gemini;
mod install;
mod model;
#[path = "../claude/program.rs"]
mod program;
mod setup;
#[path = "../suite/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other tests")]
mod support;
mod terminal;
mod world;

use agents::{AGENTS, Agent};
use libtest_mimic::{Arguments, Trial};
use std::{path::PathBuf, process::ExitCode};

/// A test that runs this agent, installed in this folder.
type Test = fn(&'static Agent, PathBuf);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let is_required = std::env::var_os("CLAUDE_PEERS_AGENTS_TESTS").is_some_and(|value| value == "required");
    let mut trials = Vec::new();
    let installed: Vec<_> = AGENTS
        .iter()
        .map(|agent| (agent, if arguments.list { Err("only listed".to_owned()) } else { install::installed(agent) }))
        .collect();
    let alone = if arguments.list || alone::is() { Ok(()) } else { alone::become_so().map(|never| match never {}) };
    let all: Result<Vec<_>, String> =
        installed.iter().map(|(agent, installed)| installed.clone().map(|program| (*agent, program))).collect();
    let all = alone.clone().and(all);
    trials.extend(between::TESTS.iter().map(|(name, test)| {
        let (is_skipped, all, test) = (all.is_err(), all.clone(), *test);
        let run = move || {
            test(all?);
            Ok(())
        };
        Trial::test(format!("between::{name}"), run).with_ignored_flag(is_skipped)
    }));
    for (agent, installed) in installed {
        let place = alone.clone().and(installed);
        if let Err(missing) = &place
            && !arguments.list
        {
            eprintln!("{}: all tests with a real {}: {missing}", if is_required { "FAILED" } else { "SKIPPED" }, agent.name);
            if is_required {
                return ExitCode::FAILURE;
            }
        }
        let tests = [
            ("calls", calls::TESTS),
            ("doors", doors::TESTS),
            ("setup", setup::TESTS),
            ("codex", codex::TESTS),
            ("gemini", gemini::TESTS),
            ("doorbell", doorbell::TESTS),
        ];
        let tests = tests.iter().flat_map(|(of, tests)| tests.iter().map(move |(name, test)| (format!("{of}::{name}"), *test)));
        trials.extend(tests.filter(|(name, _)| agent.passes(name)).map(|(name, test)| {
            let (is_skipped, place): (_, _) = (place.is_err(), place.clone());
            let run = move || {
                test(agent, place?);
                Ok(())
            };
            Trial::test(format!("{}::{name}", agent.name), run).with_ignored_flag(is_skipped)
        }));
    }
    arguments.test_threads.get_or_insert(2);
    libtest_mimic::run(&arguments, trials).exit_code()
}
