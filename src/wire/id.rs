use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// Letters of generated ids: lower case and digits without the ones people confuse (`0 o 1 l i`).
const ALPHABET: &[u8; 31] = b"23456789abcdefghjkmnpqrstuvwxyz";
/// Length of a generated peer id: 31⁶ ≈ 890 million, and the broker checks that a new one is free.
const PEER_ID_LENGTH: usize = 6;
/// Length of the random part of a message id: enough that an id cannot be guessed by a model that has not seen it.
const TAG_LENGTH: usize = 6;
/// Longest id accepted from outside, in bytes.
const MAX_LENGTH: usize = 64;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} has the wrong shape; {allowed}")]
pub struct InvalidId {
    what: &'static str,
    given: String,
    allowed: &'static str,
}

impl InvalidId {
    fn new(what: &'static str, given: &str, allowed: &'static str) -> Self {
        // What is echoed is bounded: the text came from outside and may be huge.
        Self { what, given: given.chars().take(40).collect(), allowed }
    }
}

/// A random text of `length` characters from an alphabet without look-alikes.
///
/// # Panics
/// If the operating system has no randomness to give, which Linux and macOS promise not to happen after boot.
#[expect(clippy::expect_used, reason = "without randomness no secret can be made; there is nothing to fall back to")]
pub fn random_token(length: usize) -> String {
    let mut token = String::with_capacity(length);
    let mut bytes = [0u8; 64];
    while token.len() < length {
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        // Bytes past the last whole multiple of the alphabet are dropped: every letter is equally likely.
        let usable = bytes.iter().filter(|&&b| (b as usize) < 256 - 256 % ALPHABET.len());
        token.extend(usable.take(length - token.len()).map(|&b| ALPHABET[b as usize % ALPHABET.len()] as char));
    }
    token
}

/// The identity of a peer: 1 to 64 characters of `A-Z a-z 0-9 _ -`. Given once, kept for the session's life.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema), schema(value_type = String, example = "k7xq2m"))]
pub struct PeerId(String);

impl PeerId {
    /// A fresh random id; the caller checks that nobody has it.
    pub fn random() -> Self {
        Self(random_token(PEER_ID_LENGTH))
    }

    /// The id that `text` is, or `unknown` for one that was stored by a program with other rules.
    pub fn lenient(text: &str) -> Self {
        text.parse().unwrap_or_else(|_| Self("unknown".to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PeerId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if is_handle(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId::new("peer id", text, "an id has 1 to 64 letters, digits, '-' or '_'"))
        }
    }
}

/// How a person or a model names a peer: its id or its name. Same shape as an id; the broker resolves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema), schema(value_type = String, example = "poker-engine-2"))]
pub struct PeerRef(String);

impl PeerRef {
    /// The reference as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PeerRef {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let text = text.trim();
        if is_handle(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId::new("peer", text, "a peer is named by its id or name: 1 to 64 letters, digits, '-' or '_'"))
        }
    }
}

/// The identity of a message: `m`, its place in the store, `-`, six random characters (`m1042-k7xq2m`).
///
/// Ids of one broker sort by the order in which messages were accepted; the random part keeps an id from being guessed,
/// which is why a reply that names one proves that its text was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId {
    /// The place in the store: 1, 2, 3 …
    pub seq: i64,
    /// The random part.
    pub tag: String,
}

impl MessageId {
    /// A fresh random part for a message id.
    pub fn random_tag() -> String {
        random_token(TAG_LENGTH)
    }
}

impl FromStr for MessageId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let wrong = || InvalidId::new("message id", text, "a message id looks like m1042-k7xq2m");
        let (seq, tag) = text.trim().strip_prefix('m').and_then(|rest| rest.split_once('-')).ok_or_else(wrong)?;
        // No sign and no leading zero: one message has one spelling.
        let canonical = !seq.is_empty() && !seq.starts_with('0') && seq.bytes().all(|b| b.is_ascii_digit());
        if !canonical || tag.is_empty() || tag.len() > 16 || !tag.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(wrong());
        }
        Ok(Self { seq: seq.parse().map_err(|_| wrong())?, tag: tag.to_owned() })
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}-{}", self.seq, self.tag)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PeerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<PeerId> for PeerRef {
    fn from(id: PeerId) -> Self {
        Self(id.0)
    }
}

fn is_handle(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_LENGTH && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// An id travels as its text and is parsed when it arrives.
macro_rules! as_text {
    ($($id:ty),*) => {$(
        impl Serialize for $id {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
as_text!(PeerId, PeerRef, MessageId);

/// In the OpenAPI document a message id is the text it travels as, not the struct it is parsed into.
#[cfg(feature = "broker")]
impl utoipa::PartialSchema for MessageId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("The identity of a message: `m`, its place in the store, `-`, six random characters."))
            .examples([serde_json::json!("m1042-k7xq2m")])
            .into()
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
        fn what_is_read_as_an_id_has_one_spelling(text in "[ m]?[0-9+]{0,3}[-]?[a-zA-Z0-9_.é-]{0,70}[ \\n]?") {
            if let Ok(id) = text.parse::<MessageId>() {
                prop_assert_eq!(id.to_string(), text.trim());
            }
            if let Ok(id) = text.parse::<PeerId>() {
                prop_assert_eq!(id.as_str(), &text);
                prop_assert_eq!(text.parse::<PeerRef>(), Ok(id.into()));
            }
        }
    }

    #[test]
    fn ids_of_the_wrong_shape_are_refused() {
        for text in ["", " ", "a b", "a/b", "é", "x\n", &"a".repeat(65)] {
            assert!(text.parse::<PeerId>().is_err(), "{text:?}");
        }
        for text in ["", "m", "m1", "m-abc", "m1-", "m01-abc", "m+1-abc", "1-abc", "m1-a b", "m99999999999999999999-abc"] {
            assert!(text.parse::<MessageId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_message_id_is_read_back_as_written() {
        let id = MessageId { seq: 1042, tag: MessageId::random_tag() };
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn random_tokens_differ_and_use_the_alphabet() {
        let (a, b) = (random_token(32), random_token(32));
        assert_ne!(a, b);
        assert!(a.bytes().all(|b| ALPHABET.contains(&b)) && a.len() == 32);
    }
}
