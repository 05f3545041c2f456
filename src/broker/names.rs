//! Readable names: `poker-engine`, `poker-engine-2`.

use super::roster::Roster;
use crate::wire::{BROKER_SENDER, CLI_SENDER, Code, Error, Git, PeerId, PeerRef, Status, Timestamp};
use std::{collections::BTreeSet, path::Path};

/// The longest name without its number: short enough for a table and a prompt.
const LONGEST: usize = 32;
/// Shortest part of a name by which it is suggested, and how many are.
const SHORTEST_PART: usize = 3;
const MOST_MEANT: usize = 3;
/// Words with another meaning in our commands.
const RESERVED: [&str; 7] = [CLI_SENDER, BROKER_SENDER, "self", "all", "machine", "directory", "repo"];

/// A session's preferred name: its repository's, or else its directory's, in lower-case letters, digits and single hyphens.
pub(super) fn wish(git: Option<&Git>, cwd: &str) -> String {
    let directory = || Path::new(cwd).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let source = git.map(|git| git.repo.clone()).filter(|repo| !repo.is_empty()).unwrap_or_else(directory);
    let mut name = String::new();
    for c in source.chars() {
        match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => name.push(c),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
        if name.len() >= LONGEST {
            break;
        }
    }
    let name = name.trim_end_matches('-');
    if name.is_empty() { "session".to_owned() } else { name.to_owned() }
}

/// The first of `wish`, `wish-2`, `wish-3` … that no other live peer has as its name or id. For a peer in a container it is one that no
/// gone peer of another place has either: messages for that peer would come to it.
pub(super) fn free(roster: &Roster, wish: &str, owner: &PeerId, container: Option<&str>, now: Timestamp) -> String {
    let taken = |name: &str| {
        RESERVED.contains(&name)
            || roster.peers.values().any(|peer| {
                let row = &peer.row;
                let counts = container.is_some() && row.container.as_deref() != container || peer.status(now) != Status::Gone;
                row.id != *owner && (row.name == name || row.id.as_str() == name) && counts
            })
    };
    let numbered = (2_u32..).map(|number| format!("{wish}-{number}"));
    std::iter::once(wish.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}

/// The error for a peer that nobody knows, with the names that are like it.
pub(super) fn unknown(roster: &Roster, reference: &PeerRef) -> Error {
    let list = "list the peers to see who is there, and use an id or name from that list";
    let help = match like(roster, reference.as_str()).join(" or ") {
        names if names.is_empty() => list.to_owned(),
        names => format!("did you mean {names}? If not, {list}"),
    };
    Error::new(Code::PeerNotFound, format!("Peer {reference} not found")).help(help)
}

/// The names that are the most like `given`: with few mistakes (one, and one more for every four letters), or as a part of them.
fn like(roster: &Roster, given: &str) -> Vec<String> {
    let given = given.to_ascii_lowercase();
    let far = |name: &str| {
        let mistakes = strsim::osa_distance(&given, &name.to_ascii_lowercase());
        let is_part = given.len() >= SHORTEST_PART && name.to_ascii_lowercase().contains(&given);
        (mistakes <= 1 + given.len() / 4 || is_part).then_some(mistakes)
    };
    let names: BTreeSet<&str> = roster.peers.values().map(|peer| peer.row.name.as_str()).collect();
    let mut near: Vec<(usize, &str)> = names.into_iter().filter_map(|name| Some((far(name)?, name))).collect();
    near.sort_unstable();
    let nearest = near.first().map(|(mistakes, _)| *mistakes);
    let near = near.into_iter().filter(|(mistakes, _)| Some(*mistakes) == nearest);
    near.take(MOST_MEANT).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PeerRef;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_directory_makes_a_typeable_name(cwd in any::<String>()) {
            let name = wish(None, &format!("/{cwd}"));
            prop_assert!((1..=LONGEST).contains(&name.len()) && !name.starts_with('-') && !name.ends_with('-'), "{}", name);
            prop_assert!(name.parse::<PeerRef>().is_ok() && !name.contains("--"), "{}", name);
        }
    }
}
