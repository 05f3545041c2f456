//! Output: one line of JSON, or text with tables that fit the terminal, and are as wide as they need to be elsewhere.
//!
//! Text from a peer passes through [`Field`] or `wire::text`, so it cannot steer the terminal. Colours appear only on a terminal and
//! never with `NO_COLOR`. Every write is checked.

use super::{
    exit::{Exit, Failure},
    fit::{self, Column},
};
use crate::{
    platform::settings,
    wire::{
        Timestamp,
        text::{printable, printable_json, printable_line},
    },
};
use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use unicode_width::UnicodeWidthStr;

/// The meaning of a piece of text, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    #[default]
    Plain,
    Strong,
    Good,
    Warn,
    Bad,
    Dim,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Strong => Style::new().bold(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warn => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Dim => Style::new().dimmed(),
        }
    }
}

/// One field of a table, harmless for a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    text: String,
    tone: Tone,
}

impl Field {
    pub fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: printable_line(text.as_ref()).into_owned(), tone }
    }
}

impl<T: AsRef<str>> From<T> for Field {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// A column, and what it shows of an item.
type Shows<'a, T> = (Column, &'a dyn Fn(&T) -> Field);

/// How text on a stream looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub terminal: bool,
    pub colour: bool,
}

impl Look {
    #[cfg(test)]
    pub const PLAIN: Self = Self { terminal: false, colour: false };

    fn of(stream: &impl IsTerminal) -> Self {
        let terminal = stream.is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { terminal, colour: terminal && !dumb && settings::raw(settings::NO_COLOR.name).is_none() }
    }

    pub fn paint(self, tone: Tone, text: impl AsRef<str>) -> String {
        let text = text.as_ref();
        if !self.colour || tone == Tone::Plain {
            return text.to_owned();
        }
        let style = tone.style();
        format!("{style}{text}{style:#}")
    }

    /// The start of a line that replaces one of [`Out::transient`].
    pub fn erase(self) -> &'static str {
        if self.colour { "\x1b[K" } else { "" }
    }

    /// A table with a line for each of `items`. On a terminal it is as wide as that: columns are dropped and texts cut, see [`Column`].
    pub fn table<T>(self, items: &[T], columns: &[Shows<'_, T>]) -> String {
        let terminal = crossterm::terminal::size().ok().filter(|_| self.terminal);
        let room = terminal.map_or(usize::MAX, |(width, _)| usize::from(width));
        let header = columns.iter().map(|(column, _)| Field::new(column.name, Tone::Strong)).collect();
        let row = |item| columns.iter().map(|(_, cell)| cell(item)).collect();
        let rows: Vec<Vec<Field>> = std::iter::once(header).chain(items.iter().map(row)).collect();
        let widest = |column: usize| rows.iter().map(|row| row[column].text.width()).max().unwrap_or_default();
        let widest: Vec<usize> = (0..columns.len()).map(widest).collect();
        let widths = fit::widths(&columns.iter().map(|(column, _)| *column).collect::<Vec<_>>(), &widest, room);
        let cell = |(Field { text, tone }, width): (&Field, &Option<usize>)| {
            let text = fit::cut(text, (*width)?);
            let space = " ".repeat((*width)? + fit::GAP - text.width());
            Some(self.paint(*tone, text) + &space)
        };
        let line = |row: &Vec<Field>| row.iter().zip(&widths).filter_map(cell).collect::<String>().trim_end().to_owned() + "\n";
        rows.iter().map(line).collect()
    }

    pub fn facts(self, facts: &[(&str, String)]) -> String {
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let line = |(name, value): &(&str, String)| format!("{}  {value}\n", self.paint(Tone::Dim, format!("{name:width$}")));
        facts.iter().map(line).collect()
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Out {
    /// Answers and failures are JSON on standard output.
    pub json: bool,
    /// Of standard output.
    pub look: Look,
}

impl Out {
    pub fn new(json: bool) -> Self {
        Self { json, look: Look::of(&io::stdout()) }
    }

    /// Writes a command's answer, as JSON or as `human` renders it.
    pub fn answer<T: Serialize>(self, answer: &T, human: impl FnOnce(&T, Look) -> String) -> Result<(), Failure> {
        if self.json { self.json(answer) } else { self.human(|look| human(answer, look)) }
    }

    /// Writes text for people; nothing with `--json`.
    pub fn human(self, text: impl FnOnce(Look) -> String) -> Result<(), Failure> {
        if self.json { Ok(()) } else { write_out(&text(self.look)) }
    }

    /// Shows a line on a terminal until [`Look::erase`]. It is cut at the edge, not wrapped, so that it can be erased.
    pub fn transient(self, text: &str) -> Result<(), Failure> {
        if self.json || !self.look.colour {
            return Ok(());
        }
        write_out(&format!("\x1b[?7l{}\x1b[?7h\r", self.look.paint(Tone::Dim, printable_line(text))))
    }

    pub fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        let json = serde_json::to_string(value).map_err(|error| Failure::output(&error.into()))?;
        write_out(&(printable_json(&json) + "\n"))
    }

    /// Writes a text as it is, for a file or a pipe.
    pub fn raw(self, text: &str) -> Result<(), Failure> {
        write_out(text)
    }

    pub fn aside(self, text: &str) {
        let look = Look::of(&io::stderr());
        if look.terminal && !self.json {
            // A courtesy: the command goes on even if this cannot be written.
            let _ = writeln!(io::stderr(), "{}", look.paint(Tone::Dim, text));
        }
    }

    /// Reports a failure on standard error, or with `--json` on standard output.
    pub fn failure(self, Failure { exit, report }: Failure) -> Exit {
        // If writing fails, there is nowhere left to report it; the exit code still tells.
        if let Some(report) = report {
            let look = Look::of(&io::stderr());
            let line = |tone, mark, text: &str| format!("{} {}\n", look.paint(tone, mark), printable(&look.sentence(text)));
            let help = report.help.as_ref().map(|help| line(Tone::Strong, " help:", help)).unwrap_or_default();
            let _ = match self.json {
                true => self.json(&serde_json::json!({ "error": report })).is_ok(),
                false => io::stderr().write_all((line(Tone::Bad, "error:", &report.message) + &help).as_bytes()).is_ok(),
            };
        }
        exit
    }
}

fn write_out(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// A span in the largest unit that fits: `42 s`, `3 min`, `2 h`, `4 d`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

pub fn ago(then: Timestamp, now: Timestamp) -> String {
    match u64::try_from((now.as_millis() - then.as_millis()) / 1_000) {
        Ok(0) | Err(_) => "now".to_owned(),
        Ok(seconds) => format!("{} ago", span(seconds)),
    }
}

/// `bytes` in a unit that keeps the number short.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{} GiB", bytes / 1_073_741_824),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_readable() {
        let cases = [(0, "0 s"), (59, "59 s"), (200, "3 min"), (7_500, "2 h"), (90_000, "1 d")];
        for (seconds, text) in cases {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(ago(Timestamp::from_millis(5_000), Timestamp::from_millis(4_000)), "now"); // a clock set back
        assert_eq!(ago(Timestamp::from_millis(0), Timestamp::from_millis(61_000)), "1 min ago");
    }
}
