//! Reading settings from the environment. A value that cannot be used is an error that names the variable, the value and
//! what is allowed; it is never replaced by the default in silence. An empty variable counts as not set.

use std::{ffi::OsString, time::Duration};

/// A setting whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value:?} cannot be used; allowed: {allowed}")]
pub struct InvalidSetting {
    pub variable: String,
    /// What it holds.
    pub value: String,
    /// What it may hold.
    pub allowed: String,
}

impl InvalidSetting {
    /// An error that names variable, value and what is allowed.
    pub fn new(variable: &str, value: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { variable: variable.to_owned(), value: value.into(), allowed: allowed.into() }
    }
}

/// The raw value of `variable`, if it is set and not empty.
pub fn raw(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

/// The value of `variable` as UTF-8 text.
///
/// # Errors
/// If it is not UTF-8.
pub fn text(variable: &str) -> Result<Option<String>, InvalidSetting> {
    raw(variable)
        .map(|value| value.into_string().map_err(|value| InvalidSetting::new(variable, value.to_string_lossy(), "text in UTF-8")))
        .transpose()
}

/// The value of `variable` as `parse` reads it; `allowed` says in words what that takes.
///
/// # Errors
/// If `parse` gives nothing.
pub fn parsed<T>(variable: &str, allowed: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, InvalidSetting> {
    match text(variable)? {
        None => Ok(None),
        Some(value) => match parse(value.trim()) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(InvalidSetting::new(variable, value, allowed)),
        },
    }
}

/// Reads a span of time: a whole number followed by `s`, `m`, `h` or `d`.
pub fn span(text: &str) -> Option<Duration> {
    let split = text.len().checked_sub(1)?;
    let (number, unit) = (text.get(..split)?, text.get(split..)?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    // A century is more than anybody means, and keeps sums of times far from overflow.
    let span = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    (span > 0 && span <= 100 * 365 * 86_400).then(|| Duration::from_secs(span))
}

#[cfg(feature = "cli")]
/// An http or https URL with a host and without a query.
pub fn web_address(text: &str) -> Option<ureq::http::Uri> {
    let uri: ureq::http::Uri = text.parse().ok()?;
    let web =
        uri.scheme().is_some_and(|scheme| *scheme == ureq::http::uri::Scheme::HTTP || *scheme == ureq::http::uri::Scheme::HTTPS);
    (web && uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none()).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_unit() {
        assert_eq!(span("90s"), Some(Duration::from_secs(90)));
        assert_eq!(span("7d"), Some(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "d", "7", "0d", "-1d", "7 d", "7w", "99999999999999999999d", "7é"] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
    }
}
