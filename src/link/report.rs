//! What the program reports: results on standard output, all else on standard error, and the errors of the link itself. Those of the
//! broker pass as they are.

use crate::wire::{self, Code, Error};
use serde::Serialize;
use std::{fmt::Display, io::Write};

/// Writes a line to standard error, so that standard output has results alone.
pub(super) fn say(text: &str) {
    // Nobody can be told that standard error is closed.
    drop(writeln!(std::io::stderr(), "{text}"));
}

pub(super) fn print(text: &str) -> wire::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).local("writing to standard output")
}

/// Prints a list: as JSON, or each entry as `text` shows it.
pub(super) fn print_all<T: Serialize>(json: bool, all: &[T], text: impl Fn(&T) -> String) -> wire::Result<()> {
    match json {
        true => print(&self::json(all)?),
        false => all.iter().try_for_each(|entry| print(&text(entry))),
    }
}

pub(super) fn json(value: &(impl Serialize + ?Sized)) -> wire::Result<String> {
    serde_json::to_string(value).local("writing JSON")
}

/// Turns an error into one of the protocol's.
pub(super) trait Context<T>: Sized {
    /// Says before the cause what failed.
    fn context(self, code: Code, what: impl Display) -> wire::Result<T>;

    /// The same for something on this machine.
    fn local(self, what: impl Display) -> wire::Result<T> {
        self.context(Code::Internal, what)
    }
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn context(self, code: Code, what: impl Display) -> wire::Result<T> {
        self.map_err(|error| Error::new(code, format!("{what}: {error}")))
    }
}
