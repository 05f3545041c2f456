//! `setup`: makes the installed programs a service of this user's, registers them with the agents that are installed, and checks that
//! it works.
//!
//! It can be run at any time and does only the missing steps. Files that are not ours or cannot be parsed stay as they are.
//! Failed steps are listed at the end. `--undo` reverts setup's changes and keeps databases; `--dry-run` changes nothing.

mod agents;
mod claude;
mod files;
mod launchd;
mod settings;
mod step;
mod systemd;

pub use files::{Found, found};

use crate::{
    admin::{
        manager::{Absent, Manager},
        place::{self, Place},
        probe, start, stop,
    },
    agents::{
        agent::Agent,
        claude::{Claude, OLDEST_WITH_INBOX, PLUGIN, UserSettings, WITHOUT_INBOX, has_plugin},
        known::{KNOWN, names},
        names::CLAUDE,
        server::NAME,
    },
    client::Client,
    console::{Failure, Out, Tone},
    platform::paths,
    wire::{Hello, VERSION},
};
use clap::builder::PossibleValuesParser;
use std::path::PathBuf;
use step::{Step, Walk};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Take back what setup did; messages and databases are kept
    #[arg(long)]
    pub undo: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Only this agent, which must be installed; can be repeated. Without it, all agents that are installed
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(names()), conflicts_with = "register_only")]
    pub agent: Vec<String>,
    /// All agents that are installed but this one; can be repeated
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(names()), conflicts_with_all = ["agent", "register_only"])]
    pub no_agent: Vec<String>,
    /// Leave the hooks in the agents' settings alone: messages then count as delivered only once a reply proves it
    #[arg(long)]
    pub no_hooks: bool,
    /// Leave the rules in Claude Code's settings alone: sessions then ask before they use the claude-peers tools
    #[arg(long)]
    pub no_allow: bool,
    /// Only register with Claude Code, if it is installed and has no working entry of ours
    #[arg(long)]
    pub register_only: bool,
    /// The TCP port, for legacy clients; 7899 restores the default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), conflicts_with_all = ["undo", "register_only"])]
    pub port: Option<u16>,
}

impl Args {
    /// Whether the user names this agent.
    fn names(&self, agent: &str) -> bool {
        self.agent.iter().any(|name| name == agent)
    }

    fn wants(&self, agent: &str) -> bool {
        if self.agent.is_empty() { !self.no_agent.iter().any(|name| name == agent) } else { self.names(agent) }
    }

    fn agents(&self) -> impl Iterator<Item = &'static Agent> {
        KNOWN.into_iter().filter(|agent| self.wants(agent.name.program))
    }

    /// Whether this is about some agents only.
    fn selects(&self) -> bool {
        !self.agent.is_empty() || !self.no_agent.is_empty()
    }
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
        (false, true) => walk.take("registration", claude::register(&place, true, false).await).await?,
        (true, _) => undo(&place, &args, &mut walk).await?,
    }
    walk.end()
}

async fn set_up(place: &Place, args: &Args, walk: &mut Walk) -> Result<(), Failure> {
    let manager = Manager::find().await;
    serve(place, args, &manager, walk).await?;
    if args.wants(CLAUDE.program) {
        set_up_claude(place, args, walk).await?;
    }
    for agent in args.agents() {
        walk.take(agent.name.program, agents::set_up(agent, place, args.names(agent.name.program), !args.no_hooks)).await?;
    }
    if !matches!(&manager, Manager::None(absent) if absent.help.is_some()) {
        let socket = manager.socket(&place.home).map_or_else(paths::socket, Ok)?;
        let test = test_message(socket).note(place::unseen_settings());
        walk.take("round_trip", Ok::<_, Failure>([test])).await?;
    }
    if !walk.is_well() || args.dry_run {
        return Ok(());
    }
    if let (Ok(Some(claude)), true) = (Claude::find(), args.wants(CLAUDE.program)) {
        let how = how_messages_arrive(&claude).await;
        walk.say(|_| how)?;
    }
    for agent in args.agents().filter(|agent| agents::is_installed(agent)) {
        walk.say(|_| format!("{}: messages arrive {}.", agent.title, agent.arrival))?;
    }
    Ok(())
}

async fn set_up_claude(place: &Place, args: &Args, walk: &mut Walk) -> Result<(), Failure> {
    if matches!(Claude::find(), Ok(None)) {
        if args.names(CLAUDE.program) {
            return walk.take("registration", Err::<[Step; 0], _>(agents::missing("Claude Code", CLAUDE.program))).await;
        }
        if args.agents().any(agents::is_installed) {
            return Ok(());
        }
    }
    walk.take("registration", claude::register(place, false, !args.no_hooks).await).await?;
    if !args.no_hooks {
        walk.take("hooks", claude::put_hook(place).await.map(Some)).await?;
    }
    if !args.no_allow {
        walk.take("allow_rule", claude::put_rule()).await?;
    }
    Ok(())
}

/// With `--register-only`: prints nothing if there is nothing to undo, and keeps the service.
async fn undo(place: &Place, args: &Args, walk: &mut Walk) -> Result<(), Failure> {
    if args.wants(CLAUDE.program) {
        undo_claude(place, args, walk).await?;
    }
    for agent in args.agents() {
        walk.take(agent.name.program, agents::undo(agent, place, args.register_only, !args.no_hooks)).await?;
    }
    if args.register_only {
        return Ok(());
    }
    if args.selects() {
        return walk.say(|_| "\nThe service stays, for the other agents; `claude-peers setup --undo` removes it.".to_owned());
    }
    serve(place, args, &Manager::find().await, walk).await?;
    let database = paths::database()?;
    walk.say(|_| format!("\nMessages are kept, in {}.", database.display()))
}

async fn undo_claude(place: &Place, args: &Args, walk: &mut Walk) -> Result<(), Failure> {
    if !args.no_hooks {
        walk.take("hooks", UserSettings::read().map(|file| settings::take_hook(file, place, args.register_only))).await?;
    }
    if !args.no_allow {
        walk.take("allow_rule", claude::take_rule(place, args.register_only)).await?;
    }
    walk.take("registration", claude::deregister(place, args.register_only)).await
}

/// Makes the service manager run the broker, or stop running it.
async fn serve(place: &Place, args: &Args, manager: &Manager, walk: &mut Walk) -> Result<(), Failure> {
    let (name, steps) = match (manager, args.undo) {
        (Manager::Systemd(systemd), false) => ("units", systemd::put(place, systemd, args.port).await),
        (Manager::Systemd(systemd), true) => ("units", systemd::take_back(place, systemd).await),
        (Manager::Launchd(launchd), undo) => ("agent", launchd::steps(place, launchd, undo, args.port).await),
        (Manager::None(absent), undo) => ("service", unmanaged(place, absent, undo).map(|step| vec![step])),
    };
    walk.take(name, steps).await
}

/// The step without a service manager: a failure only on machines that should have one.
fn unmanaged(place: &Place, absent: &Absent, undo: bool) -> Result<Step, Failure> {
    if let Some(help) = absent.help {
        return Err(Failure::local(&absent.reason, format!("{help}; then run this again")));
    }
    if undo {
        return Ok(Step::telling("stop the broker that runs in the background", async {
            let broker = Client::new(paths::socket()?, "claude-peers");
            let runs = broker.hello().await.is_ok();
            if runs {
                stop::stop(&broker).await?;
            }
            Ok((!runs).then(|| "no broker runs".to_owned()))
        }));
    }
    let (bin, reason) = (place.bin.clone(), absent.reason.clone());
    Ok(Step::telling(format!("start the broker in the background: {reason}"), async move {
        let broker = Client::new(paths::socket()?, "claude-peers");
        if let Ok(hello) = broker.hello().await {
            return Ok(Some(format!("the broker runs already (pid {}); {reason}", hello.pid)));
        }
        let (hello, log) = start::in_background(&bin).await?;
        let again = "`claude-peers start` starts it again after a restart of this machine";
        Ok(Some(format!(
            "the broker runs in the background (pid {}), since {reason}; {again}; its log: {}",
            hello.pid,
            log.display()
        )))
    }))
}

/// A message through the broker at `socket`.
fn test_message(socket: PathBuf) -> Step {
    Step::telling("send a test message through the broker", async move {
        let help = "`claude-peers doctor` finds the cause; the broker's log: `claude-peers logs`";
        let _: Hello = Client::new(socket.clone(), "claude-peers").hello().await?;
        let time = probe::round_trip(socket).await;
        let time = time.map_err(|failure| Failure::local(failure.report.unwrap_or_default().message, help))?;
        Ok(Some(format!("test message delivered in {} ms through the broker", time.as_millis().max(1))))
    })
}

async fn how_messages_arrive(claude: &Claude) -> String {
    let Some(version) = claude.0.version().await.ok().filter(|version| *version < OLDEST_WITH_INBOX) else {
        return "\nSessions that start from now on get their messages at once.".to_owned();
    };
    let channel = if matches!(has_plugin(), Ok(true)) { format!("plugin:{PLUGIN}") } else { format!("server:{NAME}") };
    format!(
        "\nSessions of Claude Code {version} have no inbox, which needs {OLDEST_WITH_INBOX}: {WITHOUT_INBOX}.\n\
         Update it, or start sessions with `claude --dangerously-load-development-channels {channel}`."
    )
}
