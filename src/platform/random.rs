//! The system's randomness, as tokens and ids that people can read aloud.

use crate::wire::PeerId;

/// Lower case and digits without the ones people confuse (`0 o 1 l i`).
const ALPHABET: &[u8; 31] = b"23456789abcdefghjkmnpqrstuvwxyz";
/// 31⁶ ≈ 890 million ids, and the broker checks that a new one is free.
const PEER_ID_LENGTH: usize = 6;
/// The random part of a message id: a model that has not seen the id cannot guess it.
const TAG_LENGTH: usize = 6;

/// A random text of `length` characters.
///
/// # Panics
/// If the operating system has no randomness, which Linux and macOS rule out after boot.
#[expect(clippy::expect_used, reason = "without randomness no secret can be made; there is nothing to fall back to")]
pub fn token(length: usize) -> String {
    let mut token = String::with_capacity(length);
    let mut bytes = [0u8; 64];
    while token.len() < length {
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        // Bytes past the last whole multiple of the alphabet are dropped, so every letter is equally likely.
        let usable = bytes.iter().filter(|&&b| (b as usize) < 256 - 256 % ALPHABET.len());
        token.extend(usable.take(length - token.len()).map(|&b| ALPHABET[b as usize % ALPHABET.len()] as char));
    }
    token
}

/// A random peer id; the caller checks that it is free.
pub fn peer_id() -> PeerId {
    PeerId::lenient(&token(PEER_ID_LENGTH))
}

pub fn message_tag() -> String {
    token(TAG_LENGTH)
}

/// A random UUID (RFC 9562, version 4).
pub fn uuid() -> String {
    let mut bytes = [0u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        return token(32);
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
