use super::{
    Code, Error,
    define::{shown_as_text, texts},
    error::echo,
};
use serde_with::{DeserializeFromStr, SerializeDisplay};
use smol_str::SmolStr;
use std::{fmt, ops::RangeInclusive, str::FromStr};

/// Longest id or name of a peer, in bytes.
const MAX_HANDLE: usize = 64;
/// Longest random part of a message id.
const MAX_TAG: usize = 16;

fn invalid(what: &str, given: &str, allowed: &str) -> Error {
    Error::new(Code::InvalidId, format!("{what} {:?} has the wrong shape; {allowed}", echo(given)))
}

texts! {
    /// The identity of a peer: 1 to 64 characters of `A-Z a-z 0-9 _ -`. Given once, kept for the session's life.
    pub struct PeerId like "k7xq2m",
        if is_handle,
        else |given| invalid("peer id", given, "an id has 1 to 64 letters, digits, '-' or '_'");
}

/// How a person or a model names a peer: its id or its name, in the shape of an id, or `NAME@MACHINE`. The broker resolves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, SerializeDisplay)]
pub struct PeerRef(SmolStr);

impl PeerId {
    /// Reads `text` as an id; `unknown` if a program with other rules stored it.
    pub fn lenient(text: &str) -> Self {
        text.parse().unwrap_or_else(|_| Self(SmolStr::new_static("unknown")))
    }
}

impl FromStr for PeerRef {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let allowed =
            "a peer is named by its id or name: 1 to 64 letters, digits, '-' or '_'; of another machine by NAME@MACHINE";
        let is_remote = || text.split_once('@').is_some_and(|(name, machine)| is_handle(name) && is_handle(machine));
        if is_handle(text) || is_remote() { Ok(Self(text.into())) } else { Err(invalid("peer", text, allowed)) }
    }
}

shown_as_text!(PeerRef);

fn is_handle(text: &str) -> bool {
    is_made_of(text, 1..=MAX_HANDLE, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Whether `text` has so many bytes, all of them allowed.
pub(super) fn is_made_of(text: &str, lengths: RangeInclusive<usize>, is_allowed: fn(u8) -> bool) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(is_allowed)
}

/// The identity of a message: `m`, its place in the store, `-`, six random characters (`m1042-k7xq2m`).
///
/// Ids of one broker sort by the order in which messages were accepted. The random part cannot be guessed, so a reply that
/// names an id proves that its sender has read the message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, SerializeDisplay, DeserializeFromStr)]
pub struct MessageId {
    seq: i64,
    tag: SmolStr,
}

impl MessageId {
    /// The id of the message at place `seq`, from 1, with the random part `tag`, 1 to 16 letters and digits.
    pub fn new(seq: i64, tag: impl Into<SmolStr>) -> Result<Self, Error> {
        let id = Self { seq, tag: tag.into() };
        let is_tag = (1..=MAX_TAG).contains(&id.tag.len()) && id.tag.bytes().all(|b| b.is_ascii_alphanumeric());
        if seq > 0 && is_tag { Ok(id) } else { Err(Self::invalid(&id.to_string())) }
    }

    /// The place in the store.
    pub fn seq(&self) -> i64 {
        self.seq
    }

    /// The random part.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    fn invalid(text: &str) -> Error {
        invalid("message id", text, "a message id looks like m1042-k7xq2m")
    }
}

impl FromStr for MessageId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.trim().strip_prefix('m').and_then(|rest| rest.split_once('-'));
        // No sign and no leading zero: one message has one spelling.
        let canonical = parts.filter(|(seq, _)| !seq.starts_with('0') && seq.bytes().all(|b| b.is_ascii_digit()));
        let (seq, tag) = canonical.ok_or_else(|| Self::invalid(text))?;
        Self::new(seq.parse().map_err(|_| Self::invalid(text))?, tag)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}-{}", self.seq, self.tag)
    }
}

/// How the user names a message: its id, or its number alone (`m1042`). The broker resolves it; a session needs the whole id.
#[derive(Debug, Clone, PartialEq, Eq, SerializeDisplay)]
pub enum MessageRef {
    Id(MessageId),
    Number(i64),
}

impl MessageRef {
    /// The place in the store.
    pub fn seq(&self) -> i64 {
        match self {
            Self::Id(id) => id.seq(),
            Self::Number(seq) => *seq,
        }
    }
}

impl FromStr for MessageRef {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let number = text.trim().strip_prefix('m').filter(|number| !number.starts_with('0'));
        match number.filter(|number| number.bytes().all(|b| b.is_ascii_digit())).map(str::parse) {
            Some(Ok(number)) => Ok(Self::Number(number)),
            _ => text.parse().map(Self::Id),
        }
    }
}

impl fmt::Display for MessageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Number(seq) => write!(f, "m{seq}"),
        }
    }
}

/// In the OpenAPI document a message id is the text it travels as.
#[cfg(feature = "broker")]
impl utoipa::PartialSchema for MessageId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let text = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::String);
        text.examples(["m1042-k7xq2m"]).into()
    }
}

#[cfg(feature = "broker")]
impl utoipa::ToSchema for MessageId {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_has_one_spelling(text in "[ m]?[0-9+]{0,3}[-]?[a-zA-Z0-9_.é-]{0,70}[ \\n]?") {
            if let Ok(id) = text.parse::<MessageId>() {
                prop_assert_eq!(id.to_string(), text.trim());
            }
            if let Ok(id) = text.parse::<MessageRef>() {
                prop_assert_eq!(id.to_string(), text.trim());
            }
            if let Ok(id) = text.parse::<PeerId>() {
                prop_assert_eq!(id.as_str(), &text);
            }
        }
    }
}
