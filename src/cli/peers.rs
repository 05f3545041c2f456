//! `peers`: the sessions in a scope.

use crate::{
    client::{Client, with_query},
    console::{Failure, Field, Look, Out, Tone, out::ago},
    platform::clock,
    wire::{Doing, Peer, Peers, Scope, Status, Timestamp},
};
use clap::builder::{PossibleValuesParser, TypedValueParser};

/// Which sessions to list.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// machine: all of yours; directory: in this directory; repo: in this git repository, its other worktrees included
    #[arg(long, default_value = "machine", value_parser = PossibleValuesParser::new(["machine", "directory", "repo"]).try_map(|scope| scope.parse::<Scope>()))]
    pub scope: Scope,
}

pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    let cwd = seen_from(args.scope)?;
    let peers = list(broker, args.scope, cwd.as_deref()).await?;
    out.answer(&peers, |peers, look| match args.scope {
        _ if !peers.peers.is_empty() || !look.terminal => table(&peers.peers, clock::now(), look),
        Scope::Machine => "No sessions. A session appears here when its claude-peers MCP server starts.\n".to_owned(),
        scope => format!("No sessions in this {scope}; `--scope machine` shows all.\n"),
    })
}

pub async fn list(broker: &Client, scope: Scope, cwd: Option<&str>) -> Result<Peers, Failure> {
    let mut query = vec![("scope", scope.as_str())];
    query.extend(cwd.map(|cwd| ("cwd", cwd)));
    Ok(broker.get(&with_query("/v1/peers", &query), None).await?)
}

/// The directory from which `scope` is seen, where that matters.
pub fn seen_from(scope: Scope) -> Result<Option<String>, Failure> {
    if scope == Scope::Machine {
        return Ok(None);
    }
    let help = "change to a directory that exists, or use `--scope machine`";
    let cwd = std::env::current_dir().map_err(|e| Failure::local(format!("finding the working directory: {e}"), help))?;
    let not_text = |cwd| format!("the working directory {cwd:?} is not UTF-8, which the protocol requires");
    cwd.into_os_string().into_string().map(Some).map_err(|cwd| Failure::local(not_text(cwd), help))
}

/// The peers as a table. On a terminal related facts share a field; elsewhere every fact has a column.
pub fn table(peers: &[Peer], now: Timestamp, look: Look) -> String {
    let common = ["NAME", "ID", "STATUS", "DELIVERY", "WAITING"];
    let last: &[&str] = if look.terminal { &["WHERE AND WHAT"] } else { &["SEEN", "REPO", "BRANCH", "CWD", "SUMMARY", "AGENT"] };
    look.table(&[&common, last].concat(), peers.iter().map(|peer| row(peer, now, look)).collect())
}

fn row(peer: &Peer, now: Timestamp, look: Look) -> Vec<Field> {
    let ((status, tone), seen) = (status(peer.status), ago(peer.last_seen, now));
    let waiting = if peer.waiting == 0 { Tone::Dim } else { Tone::Warn };
    // A person does not care when a connected peer was last seen.
    let seen_by_person = if look.terminal && peer.status != Status::Connected { seen.as_str() } else { "" };
    let why = peer.delivery_reason.split_once(": ").filter(|_| look.terminal).map_or("", |(_, why)| why);
    let agent = peer.agent.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut row = vec![
        Field::lines(&[&peer.name, if look.terminal { &agent } else { "" }], Tone::Strong),
        peer.id.as_str().into(),
        Field::lines(&[status, seen_by_person], tone),
        Field::lines(&[peer.delivery.as_str(), why], Tone::Plain),
        Field::new(peer.waiting.to_string(), waiting),
    ];
    if look.terminal {
        let branch = peer.git_branch.as_deref().map(|branch| format!(" ({branch})")).unwrap_or_default();
        row.push(Field::lines(&[&format!("{}{branch}", peer.cwd), &peer.summary], Tone::Plain));
    } else {
        let (repo, branch) = (peer.git_repo.as_deref().unwrap_or("-"), peer.git_branch.as_deref().unwrap_or("-"));
        row.extend([&seen, repo, branch, &peer.cwd, &peer.summary, &agent].map(Field::from));
    }
    row
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
        None => status(peer.status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_peer_shares_fields_only_on_a_terminal() {
        let peer = json!({
            "id": "k7xq2m", "name": "poker-engine", "cwd": "/src/poker-engine", "gitBranch": "main", "summary": "",
            "status": "connected", "delivery": "channel", "deliveryReason": "channel: not confirmed yet", "waiting": 2,
            "lastSeen": "2026-05-16T12:36:00Z", "registeredAt": "2026-05-16T12:36:00Z",
        });
        let peers = [serde_json::from_value(peer).expect("a peer")];
        assert_eq!(table(&peers, clock::now(), Look::PLAIN).lines().count(), 2);
        let framed = table(&peers, clock::now(), Look { terminal: true, colour: false });
        assert!(framed.contains("/src/poker-engine (main)") && framed.contains("not confirmed yet"), "{framed}");
    }
}
