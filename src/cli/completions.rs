//! `completions`: the script that makes a shell ask this program what TAB completes, and the answer to such a question.

use crate::console::{Exit, Failure, Out};
use clap::{
    Arg, Command,
    builder::{PossibleValue, PossibleValuesParser},
};
use clap_complete::{
    CompleteEnv,
    env::{Bash, Fish, Shells, Zsh},
};
use serde_json::json;

/// The variable that a script sets, to the shell's name, when it asks.
const ASKS: &str = "_CLAUDE_PEERS_COMPLETE";
/// The program, as it is typed and as the scripts call it.
const PROGRAM: &str = "claude-peers";
/// The shells that completions are tested in.
const SHELLS: Shells<'static> = Shells(&[&Bash, &Zsh, &Fish]);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
TAB completes commands, options, sessions and messages.

Examples:
  source <(claude-peers completions bash)
  claude-peers completions zsh >~/.zfunc/_claude-peers
  claude-peers completions fish >~/.config/fish/completions/claude-peers.fish")]
pub struct Args {
    /// The shell
    #[arg(value_parser = PossibleValuesParser::new([
        PossibleValue::new("bash").help("GNU Bash"), PossibleValue::new("zsh").help("Z shell"), PossibleValue::new("fish").help("fish"),
    ]))]
    pub shell: String,
}

/// Prints the script.
pub fn run(args: &Args, out: Out) -> Result<(), Failure> {
    let script = script(&args.shell).ok_or_else(|| Failure::usage(format!("there are no completions for {}", args.shell)))?;
    out.answer(&json!({ "shell": args.shell, "script": script }), |_, _| script.clone())
}

fn script(shell: &str) -> Option<String> {
    let mut script = Vec::new();
    SHELLS.completer(shell)?.write_registration(ASKS, PROGRAM, PROGRAM, PROGRAM, &mut script).ok()?;
    let script = String::from_utf8(script).ok()?.trim().to_owned() + "\n";
    // zsh runs the file as the function `_claude-peers` at the first TAB, which has to complete already.
    let first = "[[ $funcstack[1] != _claude-peers ]] || _clap_dynamic_completer_claude_peers \"$@\"\n";
    Some(if shell == "zsh" { script + first } else { script })
}

/// Answers a script that asks what fits to the words after `--`. None if nothing asks.
pub fn answer(cli: fn() -> Command) -> Option<Exit> {
    let complete = CompleteEnv::with_factory(|| offered(&cli())).var(ASKS).bin(PROGRAM).completer(PROGRAM).shells(SHELLS);
    match complete.try_complete(std::env::args_os(), std::env::current_dir().ok().as_deref()) {
        Ok(false) => None,
        Ok(true) => Some(Exit::Success),
        // A message would stand in the line that somebody types.
        Err(_) => Some(Exit::Failure),
    }
}

/// The command line without its hidden commands. Options are offered where one is begun or nothing else fits.
fn offered(cli: &Command) -> Command {
    let commands = cli.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut offered =
        Command::new(PROGRAM).version(crate::wire::VERSION).args(cli.get_arguments().cloned()).subcommands(commands);
    offered.build();
    if std::env::args_os().next_back().is_some_and(|word| word.as_encoded_bytes().starts_with(b"-")) {
        return offered;
    }
    let behind = |arg: Arg| if arg.is_positional() { arg } else { arg.hide(true) };
    offered.mut_args(behind).mut_subcommands(|command| command.mut_args(behind))
}
