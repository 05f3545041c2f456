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
mod place;
mod registration;
mod settings;
mod step;
mod systemd;

pub use files::{Found, found};
pub use place::{PROGRAMS, Place, this_program};

use crate::{
    admin::manager::{Absent, Manager},
    agents::claude::{Claude, NAME, OLDEST_WITH_INBOX, PLUGIN, WITHOUT_INBOX, has_plugin},
    console::{
        exit::{Failure, Problem},
        out::{Out, Tone},
    },
    platform::paths,
    wire::VERSION,
};
use settings::Parts;
use step::{Step, Walk};

/// What to set up.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Take back what setup made; messages and databases are kept
    #[arg(long)]
    pub undo: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Leave the hooks in Claude Code's settings alone: messages then count as delivered only once a reply proves it
    #[arg(long)]
    pub no_hooks: bool,
    /// Leave the rules in Claude Code's settings alone: sessions then ask before they use our tools
    #[arg(long)]
    pub no_allow: bool,
    /// Only register with Claude Code, where it is installed and has no entry of ours that works
    #[arg(long)]
    pub register_only: bool,
    /// The TCP port, for sessions of the reference system; 7899 goes back to the default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), conflicts_with_all = ["undo", "register_only"])]
    pub port: Option<u16>,
}

impl Args {
    fn parts(&self) -> Parts {
        Parts { hook: !self.no_hooks, rule: !self.no_allow }
    }
}

pub async fn run(args: Args, out: Out) -> Result<(), Failure> {
    place::refuse_sudo()?;
    let place = Place::find()?;
    let mut walk = Walk::new(out, args.dry_run, args.undo);
    if args.register_only {
        if args.undo {
            walk.take(settings::take_back(&place, args.parts(), true)).await?;
            walk.take(registration::deregister(&place, true)).await?;
        } else {
            walk.take(registration::register(&place, true, false).await).await?;
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
    let (service, mut steps) = match &Manager::find().await {
        Manager::Systemd(manager) => {
            let steps = systemd::put(place, manager, args.port).await;
            (Some(systemd::socket(manager)), steps.unwrap_or_else(|problem| vec![Step::impossible(systemd::FILES, problem)]))
        }
        Manager::Launchd(launchd) => (Some(agent::socket(place)), agent::put(place, launchd, args.port).await),
        Manager::None(absent) => {
            let broker = place.bin.join("claude-peersd");
            let help = format!("run {} in a terminal, or have what starts this machine's programs start it", broker.display());
            (None, vec![unmanaged(absent, "have a service manager run the broker", &help)])
        }
    };
    steps.extend(registration::register(place, false, !args.no_hooks).await);
    walk.take(steps).await?;
    walk.take(settings::put(place, args.parts()).await).await?;
    walk.take([check::step(service).note(place::unseen_settings())]).await?;
    if walk.is_well() && !args.dry_run && !walk.left_out(registration::NAME) {
        let how = how_messages_come().await;
        walk.say(|_| how)?;
    }
    Ok(())
}

async fn how_messages_come() -> String {
    let version = match Claude::find() {
        Ok(Some(claude)) => claude.version().await.ok(),
        _ => None,
    };
    let Some(version) = version.filter(|version| *version < OLDEST_WITH_INBOX) else {
        return "\nSessions that start from now on get their messages at once.".to_owned();
    };
    let channel = if matches!(has_plugin(), Ok(true)) { format!("plugin:{PLUGIN}") } else { format!("server:{NAME}") };
    format!(
        "\nSessions of Claude Code {version} have no inbox, which needs {OLDEST_WITH_INBOX}: {WITHOUT_INBOX}.\n\
         Update it, or start sessions with `claude --dangerously-load-development-channels {channel}`."
    )
}

/// What there is to say where no service manager answers: a fault only where there should be one.
fn unmanaged(absent: &Absent, what: &str, instead: &str) -> Step {
    match &absent.help {
        Some(help) => Step::impossible("service", Problem::new(&absent.reason, format!("{help}; then run this again"))),
        None => Step::left_out("service", format!("{what}: {}", absent.reason), instead),
    }
}

async fn undo(place: &Place, args: &Args, walk: &mut Walk) -> Result<(), Failure> {
    let mut steps = settings::take_back(place, args.parts(), false);
    steps.extend(registration::deregister(place, false));
    steps.extend(match &Manager::find().await {
        Manager::Systemd(manager) => {
            let steps = systemd::take_back(place, manager).await;
            steps.unwrap_or_else(|problem| vec![Step::impossible(systemd::FILES, problem)])
        }
        Manager::Launchd(launchd) => vec![agent::take_back(place, launchd).await],
        Manager::None(absent) => {
            let instead = "`claude-peers stop` ends a broker that was started by hand";
            vec![unmanaged(absent, "end the service", instead)]
        }
    });
    walk.take(steps).await?;
    let database = paths::database()?;
    walk.say(|_| format!("\nMessages are kept, in {}.", database.display()))
}
