//! `peers`: the sessions in a scope.

use crate::{
    client::{Client, with_query},
    console::{Column, Failure, Field, Look, Out, Tone, ago},
    platform::{clock, paths},
    wire::{Doing, LinkedMachine, Peer, Peers, Scope, Status, Timestamp, UNLINKED},
};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// machine: all of yours here; directory: in this directory; repo: in this git repository, its other worktrees included; everywhere: those
    /// on other machines, too; repo-everywhere: in repositories with the same remote URL
    #[arg(long, default_value = "machine", value_parser = PossibleValuesParser::new(Scope::ALL.iter().map(|scope| scope.as_str())).try_map(|scope| scope.parse::<Scope>()))]
    pub scope: Scope,
}

pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    let cwd = seen_from(args.scope)?;
    let peers = list(broker, args.scope, cwd.as_deref()).await?;
    out.answer(&peers, |peers, look| {
        let now = clock::now();
        let shown = match args.scope {
            _ if !peers.peers.is_empty() || !look.terminal => table(&peers.peers, now, look),
            Scope::Machine | Scope::Everywhere => {
                "No sessions. A session appears here when its claude-peers MCP server starts.\n".to_owned()
            }
            scope => format!("No sessions in this {scope}; `--scope machine` shows all.\n"),
        };
        shown + &if look.terminal { machines(peers, now, look) } else { String::new() }
    })
}

/// The other machines: for people, since the table has one line a peer.
fn machines(peers: &Peers, now: Timestamp, look: Look) -> String {
    let machine = |LinkedMachine { name, away_since }: &LinkedMachine| match away_since {
        Some(since) => {
            let away = look.paint(Tone::Warn, "has been away");
            format!("{name} {away} since {} ({}); mail to its sessions waits\n", look.time(*since), ago(*since, now))
        }
        None => format!("{name} is there\n"),
    };
    let mut lines: Vec<String> = peers.machines.iter().map(machine).collect();
    if peers.linked == Some(false) {
        lines.push(format!("{}\n", look.paint(Tone::Warn, format!("{UNLINKED}."))));
    }
    if lines.is_empty() { String::new() } else { format!("\n{}", lines.concat()) }
}

pub async fn list(broker: &Client, scope: Scope, cwd: Option<&str>) -> Result<Peers, Failure> {
    Ok(broker.get(&with_query("/v1/peers", &json!({ "scope": scope, "cwd": cwd })), None).await?)
}

/// The directory from which `scope` is seen, where that matters.
pub fn seen_from(scope: Scope) -> Result<Option<String>, Failure> {
    if matches!(scope, Scope::Machine | Scope::Everywhere) {
        return Ok(None);
    }
    let help = "change to a directory that exists, or use `--scope machine`";
    let cwd = std::env::current_dir().map_err(|e| Failure::local(format!("finding the working directory: {e}"), help))?;
    let not_text = |cwd| format!("the working directory {cwd:?} is not UTF-8, which the protocol requires");
    cwd.into_os_string().into_string().map(Some).map_err(|cwd| Failure::local(not_text(cwd), help))
}

/// The peers as a table, one line a peer. People look at what a session is and does; for scripts, every fact has a column of its own.
pub fn table(peers: &[Peer], now: Timestamp, look: Look) -> String {
    let name = |peer: &Peer| Field::new(&peer.name, Tone::Strong);
    let id = |peer: &Peer| peer.id.as_str().into();
    let waiting = |peer: &Peer| Field::new(peer.waiting.to_string(), if peer.waiting == 0 { Tone::Dim } else { Tone::Warn });
    let summary = |peer: &Peer| peer.summary.as_str().into();
    let agent = |peer: &Peer| peer.agent.as_ref().map(ToString::to_string).unwrap_or_default().into();
    if look.terminal {
        let branch = |peer: &Peer| peer.git_branch.as_deref().unwrap_or_default().into();
        return look.table(
            peers,
            &[
                (Column::cut("NAME", 12), &name),
                (Column::whole("ID").droppable(3), &id),
                (Column::cut("STATUS", 9), &|peer| doing_or_seen(peer, now)),
                (Column::cut("DELIVERY", 8).droppable(4), &delivery),
                (Column::whole("WAITING").droppable(2), &waiting),
                (Column::cut("BRANCH", 8).droppable(5), &branch),
                (Column::cut("DIRECTORY", 12).droppable(6), &|peer| directory(peer, at_home).into()),
                (Column::cut("SUMMARY", 12).droppable(1), &summary),
                (Column::cut("AGENT", 8).droppable(7), &agent),
            ],
        );
    }
    let or_dash = |text: &Option<String>| text.as_deref().unwrap_or("-").into();
    look.table(
        peers,
        &[
            (Column::whole("NAME"), &name),
            (Column::whole("ID"), &id),
            (Column::whole("STATUS"), &|peer| status(peer.status).0.into()),
            (Column::whole("DELIVERY"), &|peer| peer.delivery.as_str().into()),
            (Column::whole("WAITING"), &waiting),
            (Column::whole("SEEN"), &|peer| ago(peer.last_seen, now).into()),
            (Column::whole("REPO"), &|peer| or_dash(&peer.git_repo)),
            (Column::whole("BRANCH"), &|peer| or_dash(&peer.git_branch)),
            (Column::whole("CWD"), &|peer| directory(peer, str::to_owned).into()),
            (Column::whole("SUMMARY"), &summary),
            (Column::whole("AGENT"), &agent),
        ],
    )
}

/// A person does not care when a connected peer was last seen.
fn doing_or_seen(peer: &Peer, now: Timestamp) -> Field {
    let (status, tone) = doing(peer);
    match peer.status {
        Status::Connected => Field::new(status, tone),
        _ => Field::new(format!("{status}, {}", ago(peer.last_seen, now)), tone),
    }
}

/// The route, and why messages take it.
fn delivery(peer: &Peer) -> Field {
    match peer.delivery_reason.split_once(": ") {
        Some((_, why)) => format!("{}: {why}", peer.delivery.as_str()).into(),
        None => peer.delivery.as_str().into(),
    }
}

/// Its directory, which in a container is one inside (`shop-api:/workspace`), and one of another machine is there (`desktop:/src/shop`).
pub fn directory(peer: &Peer, outside: impl FnOnce(&str) -> String) -> String {
    match peer.container.as_ref().or(peer.machine.as_ref()) {
        Some(place) => format!("{place}:{}", peer.cwd),
        None => outside(&peer.cwd),
    }
}

/// A path as people write it: `~` for the home directory.
fn at_home(path: &str) -> String {
    let within = |home: PathBuf| Path::new(path).strip_prefix(home).ok().map(|rest| Path::new("~").join(rest));
    paths::home().ok().and_then(within).map_or_else(|| path.to_owned(), |short| short.display().to_string())
}

pub fn status(status: Status) -> (&'static str, Tone) {
    match status {
        Status::Connected => ("connected", Tone::Good),
        Status::Reconnecting => ("reconnecting", Tone::Warn),
        Status::Gone => ("gone", Tone::Bad),
    }
}

/// What the session does, if that is known, else whether it can be reached.
pub fn doing(peer: &Peer) -> (&'static str, Tone) {
    match peer.activity.as_ref().filter(|_| peer.status == Status::Connected).map(|activity| activity.doing) {
        Some(Doing::Idle) => ("idle", Tone::Plain),
        Some(Doing::Working) => ("working", Tone::Good),
        Some(Doing::NeedsYou) => ("needs you", Tone::Warn),
        Some(Doing::Unattended) => ("unattended", Tone::Warn),
        None => status(peer.status),
    }
}
