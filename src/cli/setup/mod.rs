//! `setup`: everything that makes the installed programs a service of this user's, registered with Claude Code, and a check that
//! it works.
//!
//! Promises: it can be run again at any time, and does only what is not so yet; every step says what it does before it does it;
//! a file that is not ours, or that cannot be understood, is left as it is; what could not be done is listed at the end. `--undo`
//! takes back what setup made and leaves databases alone; `--dry-run` changes nothing.
//!
//! Steps are planned from what is there, all before the first is done, but for the check at the end.

mod agent;
mod check;
mod files;
mod hooks;
mod place;
mod registration;
mod sockets;
mod step;
mod units;

pub use files::{Found, found};
pub use place::Place;

use super::{
    claude::has_plugin,
    exit::Failure,
    manager::{Absent, Manager, Systemd},
    out::{Out, Tone},
};
use crate::{paths, wire::VERSION};
use check::Through;
use sockets::Sockets;
use step::{Problem, Step, Walk};
use units::Units;

/// What to set up.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Take back what setup made; messages and databases are kept
    #[arg(long)]
    pub undo: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Leave the hooks in Claude Code's settings alone: messages then come through a channel, or when a session asks
    #[arg(long)]
    pub no_hooks: bool,
    /// Only register with Claude Code, where it is installed and has no entry of ours that works
    #[arg(long)]
    pub register_only: bool,
    /// The TCP port, for sessions of the reference system; 7899 goes back to the default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), conflicts_with_all = ["undo", "register_only"])]
    pub port: Option<u16>,
}

/// Does it.
pub async fn run(args: Args, out: Out) -> Result<(), Failure> {
    place::refuse_sudo()?;
    let place = Place::find()?;
    let mut walk = Walk::new(out, args.dry_run, args.undo);
    if args.register_only {
        let steps = if args.undo {
            // A program that is about to go must leave no hook that calls it.
            let hooks = if args.no_hooks { None } else { hooks::take_back(&place, true) };
            hooks.into_iter().chain(registration::deregister(&place, true).await).collect::<Vec<_>>()
        } else {
            registration::register(&place, true, false).await.into_iter().collect()
        };
        for step in steps {
            walk.take(step).await?;
        }
        return walk.end();
    }
    let verb = if args.undo { "Taking back the setup of" } else { "Setting up" };
    walk.say(|look| look.paint(Tone::Strong, format!("{verb} claude-peers {VERSION} in {}", place.bin.display())))?;
    if args.undo {
        undo(&place, &args, &mut walk).await?
    } else {
        set_up(&place, &args, &mut walk).await?
    }
    walk.end()
}

async fn set_up(place: &Place, args: &Args, walk: &mut Walk) -> Result<(), Failure> {
    let mut through = Through::Own;
    let manager = Manager::find().await;
    let steps = match &manager {
        Manager::Systemd(systemd) => {
            through = Through::Service(sockets::socket(systemd));
            with_systemd(place, systemd, args.port).await.unwrap_or_else(|problem| vec![Step::impossible("units", problem)])
        }
        Manager::Launchd(launchd) => {
            through = Through::Service(agent::socket(place));
            agent::put(place, launchd, args.port).await
        }
        Manager::None(absent) => {
            let broker = place.bin.join("claude-peersd");
            let help = format!("run {} in a terminal, or have what starts this machine's programs start it", broker.display());
            vec![unmanaged(absent, "have a service manager run the broker", help)]
        }
    };
    for step in steps.into_iter().chain(registration::register(place, false, !args.no_hooks).await) {
        walk.take(step).await?;
    }
    if !args.no_hooks {
        walk.take(hooks::put(place).await).await?;
    }
    walk.take(check::step(through).note(place::unseen_settings())).await?;
    if walk.is_well() && !args.dry_run && !walk.left_out(registration::NAME) {
        let hooks = if args.no_hooks { matches!(has_plugin(), Ok(true)) } else { !walk.left_out(hooks::NAME) };
        walk.say(|_| match hooks {
            true => "\nSessions that start from now on get their messages at once.".to_owned(),
            false => "\nStart sessions with `claude --dangerously-load-development-channels server:claude-peers`.".to_owned(),
        })?;
    }
    Ok(())
}

/// What there is to say where no service manager answers: a fault only where there should be one.
fn unmanaged(absent: &Absent, what: &str, instead: String) -> Step {
    match &absent.help {
        Some(help) => Step::impossible("service", Problem::new(&absent.reason, format!("{help}; then run this again"))),
        None => Step::left_out("service", format!("{what}: {}", absent.reason), instead),
    }
}

async fn with_systemd(place: &Place, systemd: &Systemd, port: Option<u16>) -> Result<Vec<Step>, Problem> {
    let units = Units::look(place, systemd, port)?;
    let sockets = Sockets::look(systemd).await?;
    let (changed, port) = (units.change(), units.port);
    let mut steps = units.put(systemd);
    steps.extend(sockets.open(place.package.is_some(), changed, port));
    Ok(steps)
}

async fn undo(place: &Place, args: &Args, walk: &mut Walk) -> Result<(), Failure> {
    let mut steps: Vec<_> = if args.no_hooks { None } else { hooks::take_back(place, false) }.into_iter().collect();
    steps.extend(registration::deregister(place, false).await);
    match &Manager::find().await {
        Manager::Systemd(systemd) => match without_systemd(place, systemd).await {
            Ok(others) => steps.extend(others),
            Err(problem) => steps.push(Step::impossible("units", problem)),
        },
        Manager::Launchd(launchd) => steps.extend(agent::take_back(place, launchd).await),
        Manager::None(absent) => steps.push(unmanaged(
            absent,
            "end the service",
            "`claude-peers stop` ends a broker that was started by hand".to_owned(),
        )),
    }
    for step in steps {
        walk.take(step).await?;
    }
    let database = paths::database()?;
    walk.say(|_| format!("\nMessages are kept, in {}.", database.display()))
}

async fn without_systemd(place: &Place, systemd: &Systemd) -> Result<Vec<Step>, Problem> {
    let sockets = Sockets::look(systemd).await?;
    let mut steps = vec![sockets.close()];
    steps.extend(Units::look_back(place, systemd)?.take_back(systemd));
    if place.package.is_some() {
        steps.push(sockets.forbid());
    }
    Ok(steps)
}
