//! The command line, `claude-peers`: one file a command, and a dispatch without logic.
//!
//! A command does one thing and asks the broker for it over the Unix socket. Its answer goes to standard output, as text or with
//! `--json` as JSON. An error goes to standard error (with `--json` to standard output), and the exit code is one of `exit::Exit`.

mod args;
mod ask;
mod candidates;
mod completions;
mod container;
mod doorbell;
mod export;
mod history;
mod inbox;
pub(crate) mod link;
mod manual;
mod message;
pub(crate) mod peers;
mod release;
mod rows;
mod search;
mod send;
pub(crate) mod status;
pub(crate) mod summarize;
mod watch;
mod when;
mod whoami;

use crate::{
    admin::{demo, doctor, logs, setup, start, stop, update},
    client::Client,
    console::{Exit, Failure, LIMITS, Out},
    platform::{children, paths},
    wire::text::printable,
};
use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use std::{
    io::{self, Write},
    process::ExitCode,
};
use tokio::runtime::{Builder, LocalOptions};

/// Does what the process's arguments say.
pub fn run() -> ExitCode {
    if let Some(exit) = completions::answer(Cli::command) {
        return exit.into();
    }
    let exit = match Cli::try_parse() {
        Ok(cli) => {
            let out = Out::new(cli.json);
            dispatch(cli.command, out).map_or_else(|failure| out.failure(failure), |()| Exit::Success)
        }
        Err(error) => refuse_usage(&error),
    };
    exit.into()
}

fn dispatch(command: Command, out: Out) -> Result<(), Failure> {
    // A local runtime makes the program smaller: it leaves out the scheduler for many threads.
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let failed = |e: io::Error| Failure::local(format!("starting the runtime: {e}"), LIMITS);
    runtime.map_err(failed)?.block_on(async {
        children::expect().map_err(failed)?;
        match command {
            Command::Status => status::run(&broker()?, out).await,
            Command::Peers(args) => peers::run(args, &broker()?, out).await,
            Command::Send(args) => send::run(args, &broker()?, out).await,
            Command::Ask(args) => ask::run(args, &broker()?, out).await,
            Command::Message(args) => message::run(args, &broker()?, out).await,
            Command::Release(args) => release::run(args, &broker()?, out).await,
            Command::Export(args) => export::run(args, &broker()?, out).await,
            Command::Inbox(args) => inbox::run(args, &broker()?, out).await,
            Command::History(args) => history::run(args, broker()?, out).await,
            Command::Search(args) => search::run(args, &broker()?, out).await,
            Command::Watch(args) => watch::run(args, broker()?, out).await,
            Command::Doorbell(args) => doorbell::run(args, &broker()?, out).await,
            Command::Container(args) => container::run(args, &broker()?, out).await,
            Command::Link(args) => link::run(args),
            Command::Whoami => whoami::run(&broker()?, out).await,
            Command::Start => start::start(&broker()?, out).await,
            Command::Restart => start::restart(&broker()?, out).await,
            Command::Logs(args) => logs::run(args, out).await,
            Command::Stop => stop::run(&broker()?, out).await,
            Command::Setup(args) => setup::run(args, out).await,
            Command::Doctor(args) => doctor::run(args, out).await,
            Command::Update(args) => update::run(args, out).await,
            Command::Demo => demo::run(out).await,
            Command::Completions(args) => completions::run(&args, out),
            Command::Manual(args) => manual::run(&args, Cli::command(), out),
            Command::Summarize => summarize::run(out),
            // The program's `main` runs a well-formed `hook` before it gets here.
            Command::Hook { .. } => Err(Failure::usage("`hook` takes its event, and no options")),
        }
    })
}

fn broker() -> Result<Client, Failure> {
    Ok(Client::new(paths::socket()?, "claude-peers"))
}

/// Usage errors come before the options are parsed, so the word `--json` itself decides how they look.
fn refuse_usage(error: &clap::Error) -> Exit {
    if error.use_stderr() && std::env::args_os().any(|word| word == "--json") {
        let text = error.render().to_string();
        let what = text.split("\n\n").next().unwrap_or(&text).trim_start_matches("error: ");
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        return Out::new(true).failure(Failure::usage(what));
    }
    let text = error.render().to_string();
    // The words of a shell may come from a peer.
    let shown = printable(&text);
    let _ = if shown == text { error.print() } else { io::stderr().write_all(shown.as_bytes()) }; // if this fails, there is nowhere left to report it
    if error.use_stderr() { Exit::Usage } else { Exit::Success }
}
