//! `completions`: a shell's completion script.

use super::args::Cli;
use crate::console::{exit::Failure, out::Out};
use clap::{
    Command, CommandFactory,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use clap_complete::aot::{self, Shell};
use serde_json::json;

/// Which shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  source <(claude-peers completions bash)
  claude-peers completions zsh >~/.zfunc/_claude-peers
  claude-peers completions fish >~/.config/fish/completions/claude-peers.fish")]
pub struct Args {
    /// The shell
    #[arg(value_parser = shells())]
    pub shell: Shell,
}

/// The shells that completions are tested in; there are generators for more.
fn shells() -> impl TypedValueParser<Value = Shell> {
    let shells = [("bash", "GNU Bash"), ("zsh", "Z shell"), ("fish", "fish")];
    let shells = shells.map(|(name, about)| PossibleValue::new(name).help(about));
    PossibleValuesParser::new(shells).try_map(|name| name.parse::<Shell>())
}

pub fn run(args: &Args, out: Out) -> Result<(), Failure> {
    let mut script = Vec::new();
    aot::generate(args.shell, &mut visible(), "claude-peers", &mut script);
    // If a program's name has a hyphen, the generator for bash spells the name in two ways and then completes no option
    // (clap-rs/clap#6421). The other shells' scripts have neither spelling.
    let script = String::from_utf8_lossy(&script).replace("claude__subcmd__peers", "claude__peers");
    out.answer(&json!({ "shell": args.shell.to_string(), "script": script }), |_, _| script.clone())
}

/// The command line without its hidden commands, which the generators would complete, too.
fn visible() -> Command {
    let cli = Cli::command();
    Command::new("claude-peers")
        .version(crate::wire::VERSION)
        .args(cli.get_arguments().cloned())
        .subcommands(cli.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}
