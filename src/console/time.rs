//! Times for people: in the zone of the reader, as `TZ` or the system sets it. Scripts and pipes get RFC 3339 in UTC.

use super::Look;
use crate::wire::Timestamp;
use chrono::{DateTime, Local, NaiveDate, NaiveTime, TimeDelta};

/// How long a time in a sentence of the broker is: `2026-05-16T12:36:00.000Z`.
const LENGTH: usize = 24;

impl Look {
    /// A time, to the second.
    pub fn time(self, time: Timestamp) -> String {
        if self.terminal { local(time) } else { time.to_string() }
    }

    /// A sentence of the broker. It does not know the zone of its reader, so the times in it are UTC.
    pub fn sentence(self, text: &str) -> String {
        let (mut shown, mut rest) = (String::new(), text);
        while let Some((before, time)) = next(rest).filter(|_| self.terminal) {
            shown += &(before.to_owned() + &local(time));
            rest = &rest[before.len() + LENGTH..];
        }
        shown + rest
    }
}

/// The first time in `text`, with what is before it.
fn next(text: &str) -> Option<(&str, Timestamp)> {
    let at = |start: usize| {
        let word = text.get(start..start + LENGTH).filter(|word| word.ends_with('Z'))?;
        Some((&text[..start], word.parse().ok()?))
    };
    text.char_indices().filter(|(_, c)| c.is_ascii_digit()).find_map(|(start, _)| at(start))
}

fn local(time: Timestamp) -> String {
    here(time).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// A time in at most eleven characters: of today `12:36:00`, of another day `05-16 12:36`.
pub fn brief(time: Timestamp, now: Timestamp) -> String {
    let (time, now) = (here(time), here(now));
    let format = if time.date_naive() == now.date_naive() { "%H:%M:%S" } else { "%m-%d %H:%M" };
    time.format(format).to_string()
}

/// The beginning of a local day, given as `2026-05-16`. None if it is no day.
pub fn day(text: &str) -> Option<Timestamp> {
    let begin = text.parse::<NaiveDate>().ok()?.and_time(NaiveTime::MIN);
    // Where the clock skips midnight, the day begins later.
    let begin =
        begin.and_local_timezone(Local).earliest().or_else(|| (begin + TimeDelta::hours(1)).and_local_timezone(Local).earliest());
    Some(Timestamp::from_millis(begin?.timestamp_millis()))
}

fn here(time: Timestamp) -> DateTime<Local> {
    DateTime::from_timestamp_millis(time.as_millis()).unwrap_or_default().with_timezone(&Local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_name_local_times_on_terminals_only() {
        let person = Look { terminal: true, colour: false };
        let time: Timestamp = "2026-05-16T12:36:00Z".parse().expect("a time");
        let text = format!("api – waits until {time}, sent {time}; 2026");
        assert_eq!(Look::PLAIN.sentence(&text), text);
        assert_eq!(person.sentence(&text), text.replace(&time.to_string(), &person.time(time)));
        assert!(!person.time(time).contains('Z'));
    }
}
