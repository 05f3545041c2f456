//! Ids and secrets, and checks of the paths and tokens in requests.

use super::roster::Roster;
use crate::{
    platform::random,
    wire::{self, Code, Error, PeerId},
};
use sha2::{Digest, Sha256};

/// The longest instance name, session id, key or lease accepted, in bytes.
const LONGEST_TOKEN: usize = 128;
/// The longest path accepted, in bytes (Linux's PATH_MAX).
const LONGEST_PATH: usize = 4_096;
/// Most bytes of each name that a session gives: of its repository, branch, client and agent.
const LONGEST_WORDS: usize = 4_096;

/// The stored form of a secret.
pub(super) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// An id that no peer has as its id or name.
pub(super) fn fresh_id(roster: &Roster) -> PeerId {
    let taken = |id: &PeerId| roster.peers.contains_key(id) || roster.peers.values().any(|peer| peer.row.name == id.as_str());
    std::iter::repeat_with(random::peer_id).find(|id| !taken(id)).unwrap_or_else(random::peer_id)
}

/// The key of a session's id among those of all places. A session id has no space, so those of a container never meet others.
pub(super) fn session_key(container: Option<&str>, session: String) -> String {
    match container {
        Some(container) => format!("{container} {session}"),
        None => session,
    }
}

/// Refuses a path that is relative, too long, or contains control characters, which could steer a terminal.
pub(super) fn check_path(field: &str, path: &str) -> wire::Result<()> {
    if !path.starts_with('/') || path.len() > LONGEST_PATH || path.chars().any(char::is_control) {
        let what = format!("{field} is not an absolute path without control characters of at most {LONGEST_PATH} bytes");
        return Err(Error::new(Code::InvalidPath, what).help("give the session's working directory"));
    }
    Ok(())
}

/// Refuses a text that is empty, too long, or not visible ASCII.
pub(super) fn check_token(field: &str, token: &str) -> wire::Result<()> {
    if token.is_empty() || token.len() > LONGEST_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let what = format!("{field} is not 1 to {LONGEST_TOKEN} visible ASCII characters");
        return Err(Error::new(Code::InvalidRequest, what).help("give a random text that names this process or session"));
    }
    Ok(())
}

/// The terminal that a session names; none if that is too long to be one.
pub(super) fn terminal(tty: Option<String>) -> Option<String> {
    tty.filter(|tty| tty.len() <= LONGEST_TOKEN)
}

/// Refuses a name that is too long.
pub(super) fn check_words(field: &str, words: &str) -> wire::Result<()> {
    if words.len() > LONGEST_WORDS {
        let what = format!("{field} has more than {LONGEST_WORDS} bytes");
        return Err(Error::new(Code::InvalidRequest, what).help("give a shorter one"));
    }
    Ok(())
}
