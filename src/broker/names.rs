//! Readable names: `poker-engine`, `poker-engine-2`.

use super::roster::Roster;
use crate::wire::{BROKER_SENDER, CLI_SENDER, Git, PeerId, Status, Timestamp};
use std::path::Path;

/// The longest name without its number: short enough for a table and a prompt.
const LONGEST: usize = 32;
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

/// The first of `wish`, `wish-2`, `wish-3` … that no other live peer has as its name or id.
pub(super) fn free(roster: &Roster, wish: &str, owner: &PeerId, now: Timestamp) -> String {
    let taken = |name: &str| {
        RESERVED.contains(&name)
            || roster.peers.values().any(|peer| {
                let row = &peer.row;
                row.id != *owner && (row.name == name || row.id.as_str() == name) && peer.status(now) != Status::Gone
            })
    };
    let numbered = (2_u32..).map(|number| format!("{wish}-{number}"));
    std::iter::once(wish.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
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
