//! `watch`: the sessions and their messages as they change, live on the terminal or one line each.
//!
//! [`feed`] brings the broker's events. [`lines`] prints them. [`screen`] owns the terminal: it gives events and keys to
//! [`model`], which holds what is shown, and has [`draw`] paint it.

mod draw;
mod feed;
pub(super) mod lines;
mod model;
mod screen;

use crate::{
    client::Client,
    console::{Failure, Out},
};
use std::rc::Rc;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Keys of the live view: the arrows move, Tab changes the list, Enter opens a conversation, / filters as you type, s sends to a session, \
a answers a message, q quits. The last line lists them.

Examples:
  claude-peers watch
  claude-peers watch --plain
  claude-peers watch --json | jq -c .")]
pub struct Args {
    /// Print a line for each change instead of the live view. A pipe always gets these lines; with --json, one JSON event for each
    #[arg(long)]
    pub plain: bool,
}

pub async fn run(args: Args, broker: Client, out: Out) -> Result<(), Failure> {
    let broker = Rc::new(broker);
    if args.plain || out.json || !out.look.terminal {
        return lines::run(broker, out).await;
    }
    if std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
        let what = "this terminal cannot show a live view (TERM is unset or `dumb`)";
        return Err(Failure::local(what, "use `claude-peers watch --plain`"));
    }
    screen::run(broker, out).await
}
