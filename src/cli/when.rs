//! Points in time as people give them.

use crate::{
    platform::{clock, settings},
    wire::Timestamp,
};

/// A span before now (`30m`, `2h`, `7d`), or a time in RFC 3339.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    if let Some(span) = settings::span(text) {
        return Ok(clock::now().minus(span));
    }
    text.parse().map_err(|_| "it is neither a span such as 2h nor a time such as 2026-03-01T09:00:00Z".to_owned())
}
