//! Links the broker of this machine with those of others, over NATS JetStream.
//!
//! `run` is the link itself. Its tasks keep no state that a kill could lose:
//! - `outbound`: takes mail and receipts from the broker, stores them on the hub as sealed letters, and acknowledges what the hub has;
//! - `inbound`: pulls letters from the hub, hands what they hold to the broker, and acknowledges what that has stored;
//! - `presence`: tells the other machines which sessions are here, and the broker which are there.
//!
//! Whatever fails is tried again until it works. A repetition does no harm: stream and broker know a message by its id.
//!
//! The other verbs decide who takes part: `owner` has `init`, `invite` and `revoke`, which the machines' owner runs; `join` and `leave` are for
//! the machine itself.

mod access;
mod args;
mod directory;
mod ends;
mod home;
mod hub;
mod inbound;
mod invitation;
mod join;
mod key;
mod leave;
mod list;
mod outbound;
mod owner;
mod presence;
mod report;
mod retry;
mod run;
mod seal;
mod service;
mod status;
mod store;
mod subject;

use crate::{
    platform::{children, settings},
    wire::{self, Error, MachineName},
};
use args::{Args, Verb};
use clap::Parser;
use report::{Context, print, say};
use std::process::ExitCode;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// Runs the program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let level: LevelFilter = match settings::LOG.parse() {
        Ok(level) => level,
        Err(error) => return failed(&error.into()),
    };
    // The other verbs say what they have to say in their errors.
    log(if matches!(args.verb, Verb::Run) { level } else { level.min(LevelFilter::ERROR) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.local("starting the runtime").and_then(|runtime| runtime.block_on(run(args.verb)));
    done.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

/// Logs to standard error from `level` on. The client of NATS would log what it sends below `info`, and no log has a message's text.
fn log(level: LevelFilter) {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false);
    let client = if level >= LevelFilter::DEBUG { LevelFilter::INFO } else { LevelFilter::OFF };
    let levels = Targets::new().with_default(level).with_target("async_nats", client);
    tracing_subscriber::registry().with(lines.with_filter(levels)).init();
}

async fn run(verb: Verb) -> wire::Result<()> {
    children::expect().local("handling SIGCHLD")?;
    match verb {
        Verb::Init(args) => owner::init::run(args).await,
        Verb::Invite(args) => owner::invite::run(args).await,
        Verb::Join(args) => join::run(args).await,
        Verb::List(args) => list::run(args).await,
        Verb::Revoke(args) => owner::revoke::run(args).await,
        Verb::Status(args) => status::run(args).await,
        Verb::Leave => leave::run().await,
        Verb::Run => run::run().await,
        Verb::Permissions { name } => permissions(&name),
    }
}

fn permissions(name: &MachineName) -> wire::Result<()> {
    let (publish, subscribe) = owner::config::permissions(name);
    let lines = |subjects: Vec<String>| subjects.iter().map(|subject| format!("  {subject}\n")).collect::<String>();
    let text = format!("publish\n{}subscribe\n{}", lines([publish, vec![subject::join(name)]].concat()), lines(subscribe));
    print(text.trim_end())
}

fn failed(error: &Error) -> ExitCode {
    // The words may be those of a hub.
    say(&wire::text::printable_line(&format!("claude-peers-link: {error}")));
    ExitCode::FAILURE
}
