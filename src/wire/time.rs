use super::{Code, Error};
use chrono::{DateTime, SecondsFormat};
use serde_with::{DeserializeFromStr, SerializeDisplay};
use std::{fmt, str::FromStr, time::Duration};

/// A moment in milliseconds since the Unix epoch; on the wire RFC 3339 in UTC (`2026-05-16T12:36:00.000Z`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, SerializeDisplay, DeserializeFromStr)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema), schema(value_type = String, format = DateTime))]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl FromStr for Timestamp {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |_| Error::new(Code::InvalidRequest, "a time is RFC 3339, such as 2026-05-16T12:36:00Z");
        DateTime::parse_from_rfc3339(text).map(|time| Self(time.timestamp_millis())).map_err(wrong)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = DateTime::from_timestamp_millis(self.0).unwrap_or_default();
        f.write_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let time: Timestamp = "2026-05-16T14:36:00+02:00".parse().expect("valid");
        assert_eq!(time.to_string(), "2026-05-16T12:36:00.000Z");
        assert_eq!(time.to_string().parse(), Ok(time));
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
