//! `link`: hands its words to the program `claude-peers-link`, which links this machine with others. That has a package of its own, so nobody
//! who has one machine carries its weight.

use crate::{
    admin::place::{LINK, program},
    console::Failure,
};
use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
This runs the program `claude-peers-link`, which comes in a package of its own. `claude-peers link --help` lists its commands, and \
https://github.com/claude-peers/claude-peers/blob/main/docs/link.md explains them.

Examples:
  claude-peers link init hub.example
  claude-peers link invite laptop
  claude-peers link join INVITATION
  claude-peers link status"
)]
pub struct Args {
    /// A command of `claude-peers-link`, and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub words: Vec<OsString>,
}

/// Becomes that program. Returns only if that is not possible.
pub fn run(Args { words }: Args) -> Result<(), Failure> {
    let Some(program) = program(LINK) else {
        let help = "install the package claude-peers-link, or build it in a clone of the repository: `cargo install --path . --locked --features link`";
        return Err(Failure::local("claude-peers-link is not installed", help));
    };
    let error = Command::new(&program).args(words).exec();
    Err(Failure::local(format!("starting {}: {error}", program.display()), "install it again"))
}
