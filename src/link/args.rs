//! What the command line of `claude-peers-link` takes.

use crate::wire::MachineName;
use std::path::PathBuf;

/// Links the sessions of this machine with those of your other machines, over NATS JetStream.
#[derive(Debug, clap::Parser)]
#[command(name = "claude-peers-link", version, about, max_term_width = 100)]
pub(super) struct Args {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Link this machine until the program is stopped
    Run {
        #[command(flatten)]
        hub: HubArgs,
        /// The name of this machine, which the hub knows its key by
        #[arg(long)]
        name: MachineName,
    },
    /// Create or update the stream on the hub, once, as a user who may
    Prepare {
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Make a new key and print its public part, which goes into the hub's configuration
    Key {
        /// The new file for the secret part
        file: PathBuf,
    },
}

/// Where the hub is, and how it knows us.
#[derive(Debug, clap::Args)]
pub(super) struct HubArgs {
    /// The hub's address, such as nats://hub.example:4222
    #[arg(long, value_name = "URL")]
    pub hub: String,
    /// The file with the secret part of the key
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
}
