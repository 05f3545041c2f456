//! `update`: replaces the installed programs with those of a newer release.
//!
//! It runs and installs only programs that a trusted key has signed for exactly this version and kind of machine. The three
//! programs change together or not at all, and none is ever missing. It never installs an older version and never acts for a
//! package manager. Server and key come from the command line or are built in, never from the environment. A lock on the
//! programs' folder prevents a second update.

mod keys;
mod owner;
mod programs;
mod release;

use crate::{
    admin::manager::Manager,
    console::{Failure, Look, Out, Tone},
    platform::call::quoted,
    wire::VERSION,
};
use programs::Folder;
use release::Server;
use self_update::version::cmp_versions;
use serde::Serialize;
use std::{cmp::Ordering, path::PathBuf};

/// Where releases come from, unless `--from` says otherwise.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say whether there is a newer release
    #[arg(long)]
    check: bool,
    /// Take this version instead of the newest; never one that is older than the installed
    #[arg(long, value_name = "VERSION", value_parser = version)]
    version: Option<String>,
    /// Ask this release server (an organisation's mirror; it answers as GitHub's API does)
    #[arg(long, value_name = "URL", value_parser = release::base)]
    from: Option<String>,
    /// Trust the public key in FILE instead of the built-in keys
    #[arg(long, value_name = "FILE", requires = "from")]
    key: Option<PathBuf>,
}

impl Args {
    /// The command without `--check`, as a user would type it.
    fn again(&self) -> String {
        let key = self.key.as_ref().map(|key| key.to_string_lossy());
        let options = [("--version", self.version.as_deref()), ("--from", self.from.as_deref()), ("--key", key.as_deref())];
        let given = options.into_iter().filter_map(|(name, value)| Some(format!(" {name} {}", quoted(value?))));
        std::iter::once("claude-peers update".to_owned()).chain(given).collect()
    }
}

/// Parses a version, also with the `v` of its tag.
fn version(text: &str) -> Result<String, String> {
    let number = text.strip_prefix('v').unwrap_or(text);
    let valid = cmp_versions(number, number).is_ok();
    valid.then(|| number.to_owned()).ok_or_else(|| "a version looks like 1.2.3".to_owned())
}

/// Compares a valid version with the installed one.
fn order(version: &str) -> Ordering {
    cmp_versions(version, VERSION).unwrap_or(Ordering::Equal)
}

#[serde_with::skip_serializing_none]
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    current: &'static str,
    version: String,
    newer: bool,
    updated: bool,
    from: String,
    archive: Option<String>,
    installed: Option<Vec<PathBuf>>,
    broker: Option<Broker>,
    update_with: Option<String>,
}

pub async fn run(args: Args, out: Out) -> Result<(), Failure> {
    let program = std::env::current_exe().and_then(|path| path.canonicalize());
    let program = program.map_err(|e| Failure::local(format!("finding this program's own file: {e}"), programs::REINSTALL))?;
    let again = args.again();
    let server = Server::new(args.from, args.key.as_deref())?;
    let owner = owner::of(&program).await?;
    if let Some(owner) = owner.as_ref().filter(|_| !args.check) {
        return Err(owner.refusal(&program));
    }
    if let Some(wanted) = args.version.as_deref().filter(|wanted| !args.check && order(wanted) == Ordering::Less) {
        let what = format!("version {wanted} is older than {VERSION}, which is installed");
        return Err(Failure::local(what, "an update never goes back: remove this version, then install the older one"));
    }

    let release = server.release(args.version.as_deref())?;
    let newer = order(release.version()) == Ordering::Greater;
    let mut answer = Answer {
        current: VERSION,
        newer,
        version: release.version().to_owned(),
        updated: false,
        from: server.name(),
        archive: None,
        installed: None,
        broker: None,
        update_with: (newer && args.check).then(|| owner.map_or(again, |owner| owner.command)),
    };
    if args.check || !newer {
        return out.answer(&answer, |answer, _| found(answer));
    }

    let mut folder = Folder::of(&program)?;
    out.aside(&format!("Downloading claude-peers {} from {} …", answer.version, answer.from));
    let archive = server.fetch(&release, folder.workshop())?;
    folder.unpack(&archive)?;
    folder.try_out(release.version()).await?;
    answer.installed = Some(folder.replace()?);
    answer.archive = archive.file_name().map(|name| name.to_string_lossy().into_owned());
    answer.updated = true;
    let broker = answer.broker.insert(restart_broker().await);
    let well = !matches!(broker, Broker::Failed { .. });
    out.answer(&answer, done)?;
    // The answer has already mentioned the broker that runs the old program.
    if well { Ok(()) } else { Err(Failure::TOLD) }
}

/// The running broker, which keeps its old program until it restarts.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "camelCase")]
enum Broker {
    Restarted,
    /// The service manager starts the next one with the new program.
    NotRunning,
    /// There is no service manager.
    Unmanaged,
    Failed {
        problem: String,
        help: String,
    },
}

async fn restart_broker() -> Broker {
    let manager = Manager::find().await;
    let (Some(runs), Some(restart)) = (manager.runs_broker().await, manager.restart()) else { return Broker::Unmanaged };
    let restarted = match runs {
        Ok(false) => return Broker::NotRunning,
        Ok(true) => restart.run().await.map(|_| Broker::Restarted),
        Err(error) => Err(error),
    };
    restarted.unwrap_or_else(|error| Broker::Failed { problem: error.to_string(), help: restart.to_string() })
}

impl Broker {
    fn line(&self) -> String {
        match self {
            Self::Restarted => "The broker was restarted with the new program.".to_owned(),
            Self::NotRunning => "The broker was not running; it starts with the new program.".to_owned(),
            Self::Unmanaged => {
                "There is no service manager here: a running broker keeps the old program until `claude-peers stop`.".to_owned()
            }
            Self::Failed { problem, help } => {
                format!("The broker could not be restarted and keeps the old program: {problem}\nTo restart it: {help}")
            }
        }
    }
}

fn found(answer: &Answer) -> String {
    let Answer { current, version, from, .. } = answer;
    match &answer.update_with {
        Some(command) => {
            format!("claude-peers {version} is available from {from}; {current} is installed.\nTo update: {command}\n")
        }
        None => format!("claude-peers {current} is up to date; {from} has {version}.\n"),
    }
}

fn done(answer: &Answer, look: Look) -> String {
    let programs: Vec<_> = answer.installed.iter().flatten().map(|path| path.display().to_string()).collect();
    let headline = format!("claude-peers {} is installed; it was {}.", answer.version, answer.current);
    let archive = format!("{}; checksum and signature are valid", answer.archive.as_deref().unwrap_or_default());
    let facts = look.facts(&[("from", answer.from.clone()), ("archive", archive), ("replaced", programs.join(", "))]);
    let (headline, broker) = (look.paint(Tone::Good, headline), answer.broker.as_ref().map(Broker::line).unwrap_or_default());
    format!("{headline}\n{facts}{broker}\nRunning sessions keep their old MCP server until they restart.\n")
}
