//! Reports in rows, as `setup`, `doctor` and `demo` print them: a mark, a name, a text, and advice below.

use super::out::{Look, Tone};
use crate::wire::text::{printable, printable_line};

/// The widths of the columns for mark and name.
#[derive(Clone, Copy)]
pub struct Columns(pub usize, pub usize);

impl Columns {
    /// Fits `skipped` and `registration`.
    pub const WORDS: Self = Self(7, 12);
}

pub struct Row<'a> {
    pub mark: (Tone, &'a str),
    pub name: &'a str,
    pub text: &'a str,
    pub help: Option<&'a str>,
}

impl Row<'_> {
    pub fn render(&self, Columns(mark, name): Columns, look: Look) -> String {
        let mark = look.paint(self.mark.0, format!("{:<mark$}", self.mark.1));
        let mut text = format!("{mark}  {:<name$}  {}\n", self.name, printable_line(self.text));
        for line in self.help.iter().flat_map(|help| help.lines()) {
            text += &format!("{:11}{}\n", "", look.paint(Tone::Strong, printable(line)));
        }
        text
    }
}
