//! Points in time as people give them.

use crate::{
    console::day,
    platform::{clock, settings},
    wire::Timestamp,
};

/// A span before now (`30m`, `2h`, `7d`), a local day, or a time in RFC 3339.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    if let Some(span) = settings::span(text) {
        return Ok(clock::now().minus(span));
    }
    let wrong = "it is neither a span such as 2h, nor a day such as 2026-03-01, nor a time such as 2026-03-01T09:00:00Z";
    day(text).map_or_else(|| text.parse().map_err(|_| wrong.to_owned()), Ok)
}
