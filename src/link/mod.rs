//! Links the broker of this machine with those of others, over NATS JetStream.
//!
//! Three tasks, none of which keeps a state that a kill could lose:
//! - `outbound`: takes mail and receipts from the broker, publishes them, and acknowledges what the stream has stored;
//! - `inbound`: pulls them from the stream, hands them to the broker, and acknowledges what that has stored;
//! - `directory`: tells the other machines which sessions are here, and the broker which are there.
//!
//! Whatever fails is tried again until it works. A repetition does no harm: stream and broker know a message by its id.

mod args;
mod directory;
mod ends;
mod error;
mod hub;
mod inbound;
mod key;
mod outbound;
mod retry;
mod subject;

use crate::{
    client::Client,
    platform::{paths, settings},
    wire::{self, Code, Error},
};
use args::{Args, Verb};
use clap::Parser;
use ends::Link;
use error::local;
use hub::Hub;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// Runs the program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let level: LevelFilter = match settings::LOG.parse() {
        Ok(level) => level,
        Err(error) => return failed(&Error::new(Code::InvalidRequest, error.to_string())),
    };
    log(level);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done =
        runtime.map_err(|error| local("starting the runtime", &error)).and_then(|runtime| runtime.block_on(run(args.verb)));
    done.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

/// Logs to standard error from `level` on. The client of NATS would log what it sends below `info`, and no log has a message's text.
fn log(level: LevelFilter) {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false);
    let levels = Targets::new().with_default(level).with_target("async_nats", level.min(LevelFilter::INFO));
    tracing_subscriber::registry().with(lines.with_filter(levels)).init();
}

async fn run(verb: Verb) -> wire::Result<()> {
    match verb {
        Verb::Key { file } => key::make(&file),
        Verb::Prepare { hub } => Hub::connect(&hub, None).await?.prepare().await,
        Verb::Run { hub, name } => {
            let socket = paths::socket().map_err(|error| Error::new(Code::InvalidRequest, error.to_string()))?;
            let broker = Client::new(socket, "claude-peers-link");
            let hub = Hub::connect(&hub, Some(&name)).await?;
            Link { broker, hub, machine: name }.serve().await
        }
    }
}

impl Link {
    /// Works until SIGTERM or SIGINT.
    async fn serve(&self) -> wire::Result<()> {
        let terminate = |kind| signal(kind).map_err(|error| local("listening for signals", &error));
        let (mut term, mut int) = (terminate(SignalKind::terminate())?, terminate(SignalKind::interrupt())?);
        tracing::info!("linked as {}", self.machine);
        tokio::select! {
            () = self.send_outgoing() => {}
            () = self.receive_incoming() => {}
            () = self.tell_who_is_here() => {}
            () = self.learn_who_is_there() => {}
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        self.leave().await;
        tracing::info!("stopped");
        Ok(())
    }
}

fn failed(error: &Error) -> ExitCode {
    use std::io::Write;
    let help = error.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
    // Nobody can be told that standard error is closed.
    drop(writeln!(std::io::stderr(), "claude-peers-link: {}{help}", error.message));
    ExitCode::FAILURE
}
