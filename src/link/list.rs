//! `list`: the machines that belong together.

use super::{args::ListArgs, home::Home, owner::Owner, report::print_all, run::broker};
use crate::wire::{self, MachineName, Peers, Timestamp};
use std::collections::BTreeMap;

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    name: MachineName,
    /// The machine on which this is.
    is_this: bool,
    /// How many of its sessions can be reached; none if this machine has not joined, so nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined: Option<Timestamp>,
}

pub(super) async fn run(ListArgs { folder, json }: ListArgs) -> wire::Result<()> {
    let home = Home::find()?;
    let folder = folder.map_or_else(super::owner::folder, Ok)?;
    let owner = Owner::open(&folder);
    let machines: Vec<(MachineName, Option<Timestamp>)> = match (&owner, &home) {
        (Ok(owner), _) => owner.machines.iter().map(|machine| (machine.name.clone(), Some(machine.joined))).collect(),
        (Err(_), Some(home)) => home.directory()?.machines.into_iter().map(|member| (member.name, None)).collect(),
        (Err(error), None) => return Err(error.clone()),
    };
    let sessions = match &home {
        Some(home) => Some(sessions(&home.name).await?),
        None => None,
    };
    let line = |(name, joined): (MachineName, _)| Line {
        is_this: home.as_ref().is_some_and(|home| home.name == name),
        sessions: sessions.as_ref().map(|sessions| sessions.get(&name).copied().unwrap_or_default()),
        name,
        joined,
    };
    print_all(json, &machines.into_iter().map(line).collect::<Vec<_>>(), text)
}

fn text(line: &Line) -> String {
    let Line { name, is_this, sessions, joined } = line;
    let mut said = vec![format!("{name:<20}", name = name.as_str())];
    match sessions {
        Some(1) => said.push("1 session".to_owned()),
        Some(sessions) => said.push(format!("{sessions} sessions")),
        None => {}
    }
    said.extend(joined.map(|joined| format!("joined {joined}")));
    said.extend(is_this.then(|| "this machine".to_owned()));
    said.join("  ")
}

/// How many sessions of each machine can be reached.
async fn sessions(this: &MachineName) -> wire::Result<BTreeMap<MachineName, usize>> {
    let Peers { peers, .. } = broker()?.get("/v1/peers?scope=everywhere", None).await?;
    let mut sessions = BTreeMap::new();
    for peer in peers {
        let machine = MachineName::of(&peer.id).unwrap_or_else(|| this.clone());
        *sessions.entry(machine).or_default() += 1;
    }
    Ok(sessions)
}
