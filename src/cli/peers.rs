//! `peers`: the sessions in a scope.

use crate::{
    client::{Client, with_query},
    console::{
        exit::Failure,
        out::{Field, Look, Out, Tone, ago},
    },
    platform::clock,
    wire::{Peer, Peers, Scope, Status, Timestamp},
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
    out.answer(&peers, |peers, look| match (peers.peers.is_empty() && look.terminal, args.scope) {
        (false, _) => table(&peers.peers, clock::now(), look),
        (true, Scope::Machine) => "No sessions. A session appears here when its claude-peers MCP server starts.\n".to_owned(),
        (true, Scope::Directory) => "No sessions in this directory; `--scope machine` shows all.\n".to_owned(),
        (true, Scope::Repo) => "No sessions in this repository; `--scope machine` shows all.\n".to_owned(),
    })
}

/// Asks the broker for the peers in `scope`, as seen from `cwd`.
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

/// The peers as a table: on a terminal what belongs together shares a field, elsewhere every fact has its column.
pub fn table(peers: &[Peer], now: Timestamp, look: Look) -> String {
    let common = ["NAME", "ID", "STATUS", "DELIVERY", "WAITING"];
    let last: &[&str] = if look.terminal { &["WHERE AND WHAT"] } else { &["SEEN", "REPO", "BRANCH", "CWD", "SUMMARY"] };
    look.table(&[&common, last].concat(), peers.iter().map(|peer| row(peer, now, look)).collect())
}

fn row(peer: &Peer, now: Timestamp, look: Look) -> Vec<Field> {
    let ((status, tone), seen) = (status(peer.status), ago(peer.last_seen, now));
    let waiting = if peer.waiting == 0 { Tone::Dim } else { Tone::Warn };
    // When a connected peer was last seen is of no interest to a person.
    let seen_by_person = if look.terminal && peer.status != Status::Connected { seen.as_str() } else { "" };
    let why = peer.delivery_reason.split_once(": ").filter(|_| look.terminal).map_or("", |(_, why)| why);
    let mut row = vec![
        Field::new(&peer.name, Tone::Strong),
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
        row.extend([&seen, repo, branch, &peer.cwd, &peer.summary].map(Field::from));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Route;

    fn peer() -> Peer {
        Peer {
            id: "k7xq2m".parse().expect("valid"),
            name: "poker-engine".to_owned(),
            cwd: "/src/poker-engine".to_owned(),
            git_repo: Some("poker-engine".to_owned()),
            git_branch: Some("main".to_owned()),
            summary: "Refactoring\x1b[2J auth.ts".to_owned(),
            last_seen: Timestamp::from_millis(0),
            status: Status::Connected,
            delivery: Route::Channel,
            delivery_reason: "channel: not confirmed yet".to_owned(),
            waiting: 2,
            pid: None,
            tty: None,
            registered_at: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn a_peer_is_one_line_in_a_pipe_and_on_a_terminal_shares_fields() {
        let plain = table(&[peer()], Timestamp::from_millis(5_000), Look::PLAIN);
        let line = plain.lines().nth(1).expect("a row");
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[..6], ["poker-engine", "k7xq2m", "connected", "channel", "2", "5"]);
        assert!(line.ends_with("Refactoring\\u{1b}[2J auth.ts"), "{line}");
        let framed = table(&[peer()], Timestamp::from_millis(5_000), Look { terminal: true, colour: false });
        assert!(framed.contains("/src/poker-engine (main)") && framed.contains("not confirmed yet"), "{framed}");
        assert!(!framed.contains('\x1b'), "{framed}");
    }
}
