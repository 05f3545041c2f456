//! `setup`: makes the installed programs a service of this user's, registers them with Claude Code, and checks that it works.
//!
//! It can be run at any time and does only what is left to do. A file that is not ours, or that cannot be parsed, stays as it is.
//! Failed steps are listed at the end. `--undo` takes back what setup did and keeps databases; `--dry-run` changes nothing.

mod files;
mod launchd;
mod place;
mod registration;
mod settings;
mod step;
mod systemd;

pub use files::{Found, found};
pub use place::{PROGRAMS, Place, this_program};

use crate::{
    admin::{
        manager::{Absent, Manager, READ_LOG},
        probe,
    },
    agents::claude::{Claude, NAME, OLDEST_WITH_INBOX, PLUGIN, WITHOUT_INBOX, has_plugin},
    console::{
        exit::{Failure, Problem},
        out::{Out, Tone},
    },
    platform::paths,
    wire::VERSION,
};
use std::path::PathBuf;
use step::{Ended, Step, Walk};

/// What to set up.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Take back what setup did; messages and databases are kept
    #[arg(long)]
    pub undo: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Leave the hooks in Claude Code's settings alone: messages then count as delivered only once a reply proves it
    #[arg(long)]
    pub no_hooks: bool,
    /// Leave the rules in Claude Code's settings alone: sessions then ask before they use the claude-peers tools
    #[arg(long)]
    pub no_allow: bool,
    /// Only register with Claude Code, where it is installed and has no working entry of ours
    #[arg(long)]
    pub register_only: bool,
    /// The TCP port, for legacy clients; 7899 restores the default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), conflicts_with_all = ["undo", "register_only"])]
    pub port: Option<u16>,
}

pub async fn run(args: Args, out: Out) -> Result<(), Failure> {
    place::refuse_sudo()?;
    let place = Place::find()?;
    let mut walk = Walk::new(out, args.dry_run, args.undo);
    if !args.register_only {
        let verb = if args.undo { "Undoing the setup of" } else { "Setting up" };
        walk.say(|look| look.paint(Tone::Strong, format!("{verb} claude-peers {VERSION} in {}", place.bin.display())))?;
    }
    match (args.undo, args.register_only) {
        (false, false) => set_up(&place, &args, &mut walk).await?,
        (false, true) => walk.take(registration::NAME, registration::put(&place, true, false).await).await?,
        (true, register_only) => undo(&place, &args, register_only, &mut walk).await?,
    }
    walk.end()
}

async fn set_up(place: &Place, args: &Args, walk: &mut Walk) -> Result<(), Failure> {
    let manager = Manager::find().await;
    match &manager {
        Manager::Systemd(manager) => walk.take(systemd::NAME, systemd::put(place, manager, args.port).await).await?,
        Manager::Launchd(manager) => walk.take(launchd::NAME, launchd::put(place, manager, args.port).await).await?,
        Manager::None(absent) => {
            let broker = place.bin.join("claude-peersd");
            let help = format!("run {} in a terminal, or from whatever starts programs on this machine", broker.display());
            walk.take("service", unmanaged(absent, "run the broker as a service", &help)).await?;
        }
    }
    walk.take(registration::NAME, registration::put(place, false, !args.no_hooks).await).await?;
    if !args.no_hooks {
        walk.take(settings::HOOK, settings::put_hook(place).await.map(Some)).await?;
    }
    if !args.no_allow {
        walk.take(settings::RULE, settings::put_rule(!args.no_hooks)).await?;
    }
    let test = test_message(manager.socket(&place.home)).note(place::unseen_settings());
    walk.take("round_trip", Ok::<_, Problem>([test])).await?;
    match Claude::find() {
        Ok(Some(claude)) if walk.is_well() && !args.dry_run => {
            let how = how_messages_arrive(&claude).await;
            walk.say(|_| how)
        }
        _ => Ok(()),
    }
}

/// A message through the service behind `socket`, or through a private broker.
fn test_message(socket: Option<PathBuf>) -> Step {
    let through = if socket.is_some() { "through the service" } else { "through a private broker" };
    Step::to_do(format!("send a test message {through}"), async move {
        let help = format!("`claude-peers doctor` finds the cause; the broker's log: `{READ_LOG}`");
        match probe::round_trip(socket).await {
            Ok(time) => Ok(Ended::Said(format!("test message delivered in {} ms {through}", time.as_millis().max(1)))),
            Err(failure) => Err(Problem { help, ..failure.into() }),
        }
    })
}

async fn how_messages_arrive(claude: &Claude) -> String {
    let Some(version) = claude.version().await.ok().filter(|version| *version < OLDEST_WITH_INBOX) else {
        return "\nSessions that start from now on get their messages at once.".to_owned();
    };
    let channel = if matches!(has_plugin(), Ok(true)) { format!("plugin:{PLUGIN}") } else { format!("server:{NAME}") };
    format!(
        "\nSessions of Claude Code {version} have no inbox, which needs {OLDEST_WITH_INBOX}: {WITHOUT_INBOX}.\n\
         Update it, or start sessions with `claude --dangerously-load-development-channels {channel}`."
    )
}

/// The step without a service manager: a failure only where there should be one.
fn unmanaged(absent: &Absent, what: &str, instead: &str) -> Result<[Step; 1], Problem> {
    match &absent.help {
        Some(help) => Err(Problem::new(&absent.reason, format!("{help}; then run this again"))),
        None => Ok([Step::skipped(format!("{what}: {}", absent.reason), instead)]),
    }
}

/// `register_only`: says nothing where there is nothing to undo, and keeps the service.
async fn undo(place: &Place, args: &Args, register_only: bool, walk: &mut Walk) -> Result<(), Failure> {
    if !args.no_hooks {
        walk.take(settings::HOOK, settings::take_hook(place, register_only)).await?;
    }
    if !args.no_allow {
        walk.take(settings::RULE, settings::take_rule(place, register_only, !args.no_hooks)).await?;
    }
    walk.take(registration::NAME, registration::take_back(place, register_only)).await?;
    if register_only {
        return Ok(());
    }
    match &Manager::find().await {
        Manager::Systemd(manager) => walk.take(systemd::NAME, systemd::take_back(place, manager).await).await?,
        Manager::Launchd(manager) => walk.take(launchd::NAME, launchd::take_back(place, manager).await).await?,
        Manager::None(absent) => {
            let instead = "`claude-peers stop` ends a broker that was started by hand";
            walk.take("service", unmanaged(absent, "end the service", instead)).await?;
        }
    }
    let database = paths::database()?;
    walk.say(|_| format!("\nMessages are kept, in {}.", database.display()))
}
