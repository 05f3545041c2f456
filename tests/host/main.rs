//! The packaged service on a real Debian with systemd as process 1 and two users.
//!
//! The tests need root, debootstrap, cargo-deb, apt-ftparchive and gpg. If something is missing, they are skipped with a message, unless
//! `CLAUDE_PEERS_HOST_TESTS=required`. Tests wait for events; timeouts only make a broken build fail.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

mod apt;
mod bus;
#[path = "../claude/program.rs"]
mod claude;
mod container;
mod copies;
mod doctor;
mod faults;
mod install;
#[cfg(feature = "link")]
mod link;
mod machine;
mod prepare;
#[path = "../suite/update/server.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod release;
mod remove;
mod setup;
#[path = "../suite/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other tests")]
mod support;
mod update;
mod upgrade;
mod users;

use libtest_mimic::{Arguments, Trial};
use prepare::Prepared;
use std::{process::ExitCode, sync::Arc};

/// A test on machines.
type Test = fn(&Prepared);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let tests: Vec<(&str, Test)> = [
        install::TESTS,
        users::TESTS,
        faults::TESTS,
        doctor::TESTS,
        setup::TESTS,
        bus::TESTS,
        upgrade::TESTS,
        apt::TESTS,
        container::TESTS,
        update::TESTS,
        remove::TESTS,
        #[cfg(feature = "link")]
        link::TESTS,
    ]
    .concat();
    let prepared = if arguments.list { Err("only listed".to_owned()) } else { Prepared::new() };
    let trials = match prepared {
        Ok(prepared) => {
            let prepared = Arc::new(prepared);
            let trial = |(name, test): (&str, Test)| {
                let prepared = prepared.clone();
                Trial::test(name, move || {
                    test(&prepared);
                    Ok(())
                })
            };
            tests.into_iter().map(trial).collect()
        }
        Err(missing) => {
            if std::env::var_os("CLAUDE_PEERS_HOST_TESTS").is_some_and(|value| value == "required") {
                eprintln!("the tests on real machines must run, but: {missing}");
                return ExitCode::FAILURE;
            }
            eprintln!("SKIPPED: all tests on real Debian machines: {missing}");
            tests.into_iter().map(|(name, _)| Trial::test(name, || Ok(())).with_ignored_flag(true)).collect()
        }
    };
    // Every machine needs much memory and processor time.
    arguments.test_threads.get_or_insert(3);
    libtest_mimic::run(&arguments, trials).exit_code()
}
