//! The words of the command line, and what `--help` says about them.

use super::{ask, completions, history, manual, message, peers, release, send};
use crate::{
    admin::{doctor, setup, update},
    console::exit,
    platform::settings,
};
use clap::{Parser, Subcommand};

/// The coding-agent sessions on this machine find each other and talk; this is how a person watches them and joins in.
///
/// Every command asks the broker, `claude-peersd`. Answers are tables on a terminal and plain aligned lines in a pipe; with
/// --json they are one line of JSON, also for errors.
#[derive(Debug, Parser)]
#[command(name = "claude-peers", version, arg_required_else_help = true, max_term_width = 110, after_help = after_help())]
pub struct Cli {
    /// Print the answer as one line of JSON; an error as {"error":{"code","message","help"}}
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the broker, its sockets and database, and all peers
    Status,
    /// List the sessions that can be written to
    Peers(peers::Args),
    /// Send a message to a session
    Send(send::Args),
    /// Ask a session and print its answer
    Ask(ask::Args),
    /// Show what became of a message, with all its times
    Message(message::Args),
    /// Let a message in that the recipient's controls hold
    Release(release::Args),
    /// Show the messages sent and received, newest first
    History(history::Args),
    /// Show which peer the session is that this command runs in
    Whoami,
    /// Stop the broker and wait until it is gone; nothing accepted is lost
    #[command(visible_alias = "kill-broker")]
    Stop,
    /// Make this installation a service of yours, register it with Claude Code, and check that it works
    Setup(setup::Args),
    /// Check the installation, and say what is wrong and how to fix it
    Doctor(doctor::Args),
    /// Replace these programs by those of a newer, signed release
    Update(update::Args),
    /// Watch two sessions talk, lose their broker and miss nothing; touches none of your files
    Demo,
    /// Print the script that completes these commands in your shell
    Completions(completions::Args),
    /// Write the man pages to a folder (used by whoever packages this)
    #[command(hide = true)]
    Manual(manual::Args),
    /// Tell the broker which messages a session has let in (run by Claude Code's prompt hook)
    #[command(hide = true)]
    Hook {
        /// The event, as Claude Code names it
        event: std::ffi::OsString,
    },
    /// Make a summary from facts in JSON on standard input (used by claude-peers-mcp)
    #[command(hide = true)]
    Summarize,
}

fn after_help() -> String {
    format!(
        "\
Examples:
  claude-peers peers --scope repo
  claude-peers send poker-engine \"Is the schema of /hands final?\"
  claude-peers ask poker-engine \"Which port does it use?\" --wait 60
  git diff | claude-peers send poker-engine -
  claude-peers message m1042-k7xq2m --json

Environment:
{}
  claude-peersd(1) lists the broker's settings, claude-peers-mcp(1) those of a session.

Exit codes:
{}",
        settings::help("claude-peers"),
        exit::HELP
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_references_words_are_understood() {
        for words in ["status", "peers", "send abc123 hello there", "kill-broker", "stop", "peers --json --scope repo"] {
            let words = std::iter::once("claude-peers").chain(words.split(' '));
            Cli::try_parse_from(words).expect("understood");
        }
    }
}
