//! `update`: puts the programs of a newer release in the place of the installed ones.
//!
//! Promises: nothing is run or installed but what a trusted key has signed for exactly this version and this kind of machine;
//! the three programs change together or not at all, and each of them at no moment is missing; never to an older version;
//! never behind the back of a package manager. What is trusted and who is asked is said on the command line or built in,
//! never read from the environment. While it works it holds an advisory lock on the programs' folder.

mod keys;
mod owner;
mod programs;
mod release;

use crate::{
    admin::manager::{Manager, SERVICE},
    console::{
        exit::Failure,
        out::{Look, Out, Tone},
    },
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
    /// Trust the public key in FILE instead of those that are built in
    #[arg(long, value_name = "FILE", requires = "from")]
    key: Option<PathBuf>,
}

impl Args {
    /// The same command without the check, as one would type it.
    fn again(&self) -> String {
        let key = self.key.as_ref().map(|key| key.to_string_lossy());
        let options = [("--version", self.version.as_deref()), ("--from", self.from.as_deref()), ("--key", key.as_deref())];
        let given = options.into_iter().filter_map(|(name, value)| Some(format!(" {name} {}", quoted(value?))));
        std::iter::once("claude-peers update".to_owned()).chain(given).collect()
    }
}

/// Reads the number of a version, also with the `v` of its tag.
fn version(text: &str) -> Result<String, String> {
    let number = text.strip_prefix('v').unwrap_or(text);
    let valid = cmp_versions(number, number).is_ok();
    valid.then(|| number.to_owned()).ok_or_else(|| "a version looks like 1.2.3".to_owned())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    current: &'static str,
    version: String,
    newer: bool,
    updated: bool,
    from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    installed: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<Broker>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_with: Option<String>,
}

pub async fn run(args: Args, out: Out) -> Result<(), Failure> {
    let program = std::env::current_exe().and_then(|path| path.canonicalize());
    let program = program.map_err(|e| Failure::local(format!("finding this program's own file: {e}"), programs::REINSTALL))?;
    let again = args.again();
    let server = Server::new(args.from, args.key.as_deref())?;
    let owner = owner::of(&program).await?;
    if let Some(owner) = owner.as_ref().filter(|_| !args.check) {
        return Err(owner.refusal(&program).into());
    }
    if let Some(wanted) = args.version.as_deref().filter(|wanted| !args.check && order(wanted) == Ordering::Less) {
        let what = format!("version {wanted} is older than {VERSION}, which is installed");
        return Err(Failure::local(what, "an update never goes back: remove this version, then install the older one"));
    }

    let release = server.release(args.version.as_deref())?;
    let mut answer = Answer {
        current: VERSION,
        newer: order(release.version()) == Ordering::Greater,
        version: release.version().to_owned(),
        updated: false,
        from: server.name(),
        archive: None,
        installed: Vec::new(),
        broker: None,
        update_with: None,
    };
    if answer.newer && args.check {
        answer.update_with = Some(owner.map_or(again, |owner| owner.command));
    }
    if args.check || !answer.newer {
        return out.answer(&answer, |answer, _| found(answer));
    }

    let mut folder = Folder::of(&program)?;
    out.aside(&format!("Downloading claude-peers {} from {} …", answer.version, answer.from));
    let archive = server.fetch(&release, folder.workshop())?;
    folder.unpack(&archive)?;
    folder.try_out(release.version()).await?;
    answer.installed = folder.replace()?;
    answer.archive = archive.file_name().map(|name| name.to_string_lossy().into_owned());
    answer.updated = true;
    answer.broker = Some(restart_broker().await);
    out.answer(&answer, done)?;
    // The programs are new and stay; that the broker is not has been said with them.
    if matches!(answer.broker, Some(Broker::Failed { .. })) { Err(Failure::Told) } else { Ok(()) }
}

/// What became of the running broker, which goes on with its old program until it is restarted.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "camelCase")]
enum Broker {
    Restarted,
    /// The service manager ran none; the next one is new.
    NotRunning,
    /// There is no service manager: whoever started it must end it.
    Unmanaged,
    /// It runs the old program still.
    Failed {
        problem: String,
        help: String,
    },
}

/// Restarts the broker where the service manager runs it, which holds its sockets meanwhile; one that is not running stays so.
async fn restart_broker() -> Broker {
    let (ran, restart) = match Manager::find().await {
        Manager::None(_) => return Broker::Unmanaged,
        Manager::Systemd(systemd) => {
            let ran = systemd.units([SERVICE]).await.map(|[unit]| unit.is_active());
            (ran, systemd.on("try-restart", [SERVICE]))
        }
        Manager::Launchd(launchd) => (launchd.pid().await.map(|pid| pid.is_some()), launchd.restart()),
    };
    let done = match ran {
        Ok(false) => return Broker::NotRunning,
        Ok(true) => restart.run().await.map(|_| Broker::Restarted),
        Err(error) => Err(error),
    };
    done.unwrap_or_else(|error| Broker::Failed { problem: error.to_string(), help: restart.to_string() })
}

impl Broker {
    fn line(&self) -> String {
        match self {
            Self::Restarted => "The broker was restarted with the new program.\n".to_owned(),
            Self::NotRunning => "The broker was not running; it starts with the new program.\n".to_owned(),
            Self::Unmanaged => {
                "There is no service manager here: a broker that runs goes on with the old program until `claude-peers stop`.\n"
                    .to_owned()
            }
            Self::Failed { problem, help } => {
                format!("The broker could not be restarted and goes on with the old program: {problem}\nTo restart it: {help}\n")
            }
        }
    }
}

/// How `version`, known to be one, stands to the installed one.
fn order(version: &str) -> Ordering {
    cmp_versions(version, VERSION).unwrap_or(Ordering::Equal)
}

fn found(answer: &Answer) -> String {
    let Answer { current, version, from, .. } = answer;
    if let Some(command) = &answer.update_with {
        format!("claude-peers {version} is available from {from}; installed is {current}.\nTo update: {command}\n")
    } else {
        format!("claude-peers {current} is already up to date; {from} has {version}.\n")
    }
}

fn done(answer: &Answer, look: Look) -> String {
    let programs: Vec<_> = answer.installed.iter().map(|path| path.display().to_string()).collect();
    let headline = format!("claude-peers {} is installed; it was {}.", answer.version, answer.current);
    let archive = format!("{}; checksum and signature are right", answer.archive.as_deref().unwrap_or_default());
    look.paint(Tone::Good, headline)
        + "\n"
        + &look.facts(&[("from", answer.from.clone()), ("archive", archive), ("replaced", programs.join(", "))])
        + &answer.broker.as_ref().map(Broker::line).unwrap_or_default()
        + "Sessions that run go on with their old MCP server until they are started again.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_and_without_the_v_of_a_tag() {
        assert_eq!(version("1.2.3"), Ok("1.2.3".to_owned()));
        assert_eq!(version("v1.2.3-rc.1"), Ok("1.2.3-rc.1".to_owned()));
        for wrong in ["", "v", "latest", "1.2", "1.2.3/../..", "vv1.2.3"] {
            version(wrong).expect_err(wrong);
        }
    }
}
