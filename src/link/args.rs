//! What the command line of `claude-peers-link` takes. `claude-peers link` is the same.

use crate::wire::MachineName;
use std::path::PathBuf;

/// Links the sessions of this machine with those of your other machines, over NATS JetStream.
#[derive(Debug, clap::Parser)]
#[command(name = "claude-peers-link", bin_name = "claude-peers link", version, max_term_width = 100)]
pub(super) struct Args {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Set up a hub, through which your machines reach each other
    Init(InitArgs),
    /// Invite a machine: print the command to run there, and wait until it has joined
    Invite(InviteArgs),
    /// Join your other machines, with the line that `invite` has printed
    Join(JoinArgs),
    /// List your machines
    List(ListArgs),
    /// Remove a machine: the hub disconnects it and no longer lets it in
    Revoke(RevokeArgs),
    /// Check the link of this machine
    Status(StatusArgs),
    /// Leave your other machines; the keys of this one are deleted
    Leave,
    /// Run the link in the foreground; the service runs this command
    Run,
    /// Print the NATS permissions that a machine needs on a hub that others run
    Permissions {
        /// The machine's name
        name: MachineName,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// The hub's address as your machines reach it: HOST or HOST:PORT; several for a cluster
    #[arg(required = true, value_name = "ADDRESS")]
    pub addresses: Vec<String>,
    /// The owner's folder, instead of ~/.config/claude-peers/hub
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// A shell command that copies machines.conf to a hub elsewhere and reloads that hub; it runs in the configuration's folder
    #[arg(long, value_name = "COMMAND")]
    pub apply: Option<String>,
    /// Your credentials for a hub that others run
    #[arg(long, value_name = "FILE", conflicts_with = "apply")]
    pub credentials: Option<PathBuf>,
    /// How many servers of a cluster store each message
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub replicas: u8,
}

#[derive(Debug, clap::Args)]
pub(super) struct InviteArgs {
    /// The new machine's name: its sessions are called SESSION@NAME
    pub name: MachineName,
    /// The owner's folder, instead of ~/.config/claude-peers/hub
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// How long the invitation is valid
    #[arg(long, default_value_t = 10, value_name = "MINUTES", value_parser = clap::value_parser!(u16).range(1..=1_440))]
    pub minutes: u16,
}

#[derive(Debug, clap::Args)]
pub(super) struct JoinArgs {
    /// The invitation; read from standard input if it is missing or `-`
    #[arg(value_name = "INVITATION")]
    pub line: Option<String>,
    /// This machine's credentials for a hub that others run
    #[arg(long, value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// The address of a leaf node through which this machine reaches that hub
    #[arg(long, value_name = "ADDRESS", requires_all = ["credentials", "domain"])]
    pub leaf: Option<String>,
    /// The hub's JetStream domain, for a leaf node
    #[arg(long, value_name = "NAME", requires = "leaf")]
    pub domain: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// The owner's folder, instead of ~/.config/claude-peers/hub
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RevokeArgs {
    /// The machine's name
    pub name: MachineName,
    /// The owner's folder, instead of ~/.config/claude-peers/hub
    #[arg(long)]
    pub folder: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
