//! `logs`: what the broker has logged, from the journal or from its file. The program that shows it takes over this process.

use super::{
    manager::{self, Manager, SERVICE},
    start,
};
use crate::{
    console::{Failure, Out},
    platform::paths,
};
use std::{os::unix::process::CommandExt, process::Command};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show new lines as they come, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// How many of the last lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub lines: u32,
}

pub async fn run(args: Args, out: Out) -> Result<(), Failure> {
    let lines = args.lines.to_string();
    let mut command = match Manager::find().await {
        Manager::Systemd(systemd) => {
            let mut journal = Command::new("journalctl");
            journal.env("XDG_RUNTIME_DIR", &systemd.runtime).args(["--user", "-u", SERVICE, "--no-pager", "-n", &lines]);
            journal.args(args.follow.then_some("-f")).args(out.json.then_some("--output=json"));
            journal
        }
        _ if out.json => return Err(Failure::usage("the log is a file here, without fields: leave out --json")),
        other => file(&other, &lines, args.follow)?,
    };
    let program = command.get_program().display().to_string();
    let error = command.exec();
    Err(Failure::local(format!("running {program}: {error}"), format!("install {program}, or correct PATH")))
}

fn file(manager: &Manager, lines: &str, follow: bool) -> Result<Command, Failure> {
    let log = if let Manager::Launchd(_) = manager { manager::log(&paths::home()?) } else { start::log()? };
    if !log.is_file() {
        let what = format!("there is no log at {}", log.display());
        return Err(Failure::local(what, "`claude-peers start` writes one; a broker started by hand logs to its terminal"));
    }
    let mut tail = Command::new("tail");
    tail.args(["-n", lines]).args(follow.then_some("-F")).arg(log);
    Ok(tail)
}
