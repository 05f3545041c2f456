//! The arguments of the command line, and their `--help`.

use super::{
    ask, completions, container, doorbell, export, history, inbox, link, manual, message, peers, release, search, send, watch,
};
use crate::{
    admin::{doctor, logs, setup, update},
    console::EXIT_CODES,
    platform::settings,
};
use clap::{Parser, Subcommand};

/// Watch the coding-agent sessions on this machine talk to each other, and join in.
///
/// Every command asks the broker, `claude-peersd`. Answers are tables that fit the terminal; in a pipe they are complete. With
/// --json, each answer and each error is one line of JSON.
#[derive(Debug, Parser)]
#[command(name = "claude-peers", version, arg_required_else_help = true, max_term_width = 110, after_help = after_help())]
pub struct Cli {
    /// Print JSON: one line for an answer or an event, and an error as {"error":{"code","message","help"}}
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the broker, its sockets and database, and all peers
    Status,
    /// List the sessions
    Peers(peers::Args),
    /// Watch the sessions and their messages live; send and answer from there
    Watch(watch::Args),
    /// Send a message to a session
    Send(send::Args),
    /// Ask a session and print its answer
    Ask(ask::Args),
    /// Show a message, its state, the time of each change, and its conversation
    Message(message::Args),
    /// Deliver a message that the recipient's controls hold
    Release(release::Args),
    /// Show the answers that came for you, and mark them as read
    Inbox(inbox::Args),
    /// Show the messages sent and received, newest first
    History(history::Args),
    /// Search the texts of all messages, best matches first
    Search(search::Args),
    /// Write messages to standard output, as JSON lines or as a web page of conversations
    Export(export::Args),
    /// Tell a session that mail waits, for agents that nothing else can wake
    Doorbell(doorbell::Args),
    /// Let sessions in a container talk to sessions outside it
    Container(container::Args),
    /// Let sessions on your machines talk to each other
    Link(link::Args),
    /// Show which peer this command's session is
    Whoami,
    /// Start the broker and wait until it answers; without a service manager it runs in the background
    Start,
    /// Restart the broker; sessions reconnect by themselves and no accepted message is lost
    Restart,
    /// Show what the broker has logged
    Logs(logs::Args),
    /// Stop the broker and wait until it is gone; under a service manager the next connection starts it again
    #[command(visible_alias = "kill-broker")]
    Stop,
    /// Install the broker as your service, register with your coding agents, and check that it works
    Setup(setup::Args),
    /// Check the installation and say how to fix it
    Doctor(doctor::Args),
    /// Update these programs to a newer, signed release
    Update(update::Args),
    /// Watch two sessions talk, lose their broker and miss nothing; touches none of your files
    Demo,
    /// Print a completion script for your shell
    Completions(completions::Args),
    /// Write the man pages to a folder (used by packages)
    #[command(hide = true)]
    Manual(manual::Args),
    /// Tell the broker which messages a session has let in (run by Claude Code's prompt hook), or bring messages (run by Gemini CLI's hooks)
    #[command(hide = true)]
    Hook {
        /// The event, as Claude Code names it, or `gemini`
        event: std::ffi::OsString,
    },
    /// Make a summary from facts in JSON on standard input (used by claude-peers-mcp)
    #[command(hide = true)]
    Summarize,
}

fn after_help() -> String {
    let exit_codes = EXIT_CODES.map(|(exit, what)| format!("  {}  {what}", exit as u8));
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
        exit_codes.join("\n")
    )
}
