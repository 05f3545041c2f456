//! `completions`: the script that completes the commands in a shell.

use super::{args::Cli, exit::Failure, out::Out};
use clap::{Command, CommandFactory, ValueEnum};
use clap_complete::aot;
use serde::Serialize;

/// The shells there is a script for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shell {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

/// For whom.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  source <(claude-peers completions bash)
  claude-peers completions zsh >~/.zfunc/_claude-peers
  claude-peers completions fish >~/.config/fish/completions/claude-peers.fish")]
pub struct Args {
    /// The shell
    pub shell: Shell,
}

#[derive(Serialize)]
struct Completions {
    shell: Shell,
    script: String,
}

/// Prints it.
pub fn run(args: &Args, out: Out) -> Result<(), Failure> {
    let shell = match args.shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
    };
    let mut script = Vec::new();
    aot::generate(shell, &mut shown(), "claude-peers", &mut script);
    // The generators write only what the parser was told, which is text.
    let script = String::from_utf8_lossy(&script);
    // For a program with a hyphen in its name, the generator for bash writes the name in two ways and then completes no
    // option of any command (clap-rs/clap#6421). In the others' scripts neither way occurs.
    let script = script.replace("claude__subcmd__peers", "claude__peers");
    out.answer(&Completions { shell: args.shell, script }, |completions, _| completions.script.clone())
}

/// The command line without what it hides: the generators complete hidden commands, too.
fn shown() -> Command {
    let cli = Cli::command();
    Command::new("claude-peers")
        .version(crate::wire::VERSION)
        .args(cli.get_arguments().cloned())
        .subcommands(cli.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}
