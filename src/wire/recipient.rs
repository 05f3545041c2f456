use super::{Error, PeerRef, Scope};
use std::{fmt, str::FromStr};

/// Marks a recipient that is a scope: `@repo`.
const EVERYONE: char = '@';

/// Who gets a message: one peer, or every peer in a scope but the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// One peer, by its id or name.
    One(PeerRef),
    /// Every peer in a scope.
    Everyone(Scope),
}

impl FromStr for Recipient {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.trim().strip_prefix(EVERYONE) {
            Some(scope) => Ok(Self::Everyone(scope.parse()?)),
            None => Ok(Self::One(text.parse()?)),
        }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(peer) => peer.fmt(f),
            Self::Everyone(scope) => write!(f, "{EVERYONE}{}", scope.as_str()),
        }
    }
}
