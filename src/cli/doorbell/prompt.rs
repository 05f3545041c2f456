//! An agent's prompt on the screen: whether it is empty, and what it holds.
//!
//! Agents draw their prompts in their own ways, and none says what it holds. So an empty prompt is recorded, and the prompt is
//! empty when it looks exactly like that.

use super::pane::Screen;
use crate::agents::names;

/// What agents show only in an empty prompt.
const HINTS: [(&str, &str); 2] = [(names::GOOSE.program, "Enter to send"), (names::GEMINI.program, "Type your message or @path")];
/// The signs at the end of a prompt.
const MARKS: [char; 4] = ['>', '❯', '›', '»'];
/// The edges of a box.
const EDGES: [char; 4] = ['│', '┃', '|', ' '];

/// An empty prompt.
#[derive(Debug)]
pub struct Prompt {
    row: String,
    pub column: usize,
    has_cursor: bool,
    below: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    Nothing,
    /// Our line, and nothing else.
    Line,
}

impl Prompt {
    /// The prompt at the cursor of this agent, if it is certainly empty: it shows a hint that stands only there, or the cursor
    /// follows the only mark, with nothing behind it.
    pub fn empty(screen: &Screen, agent: &str) -> Option<Self> {
        let ((column, _), row) = (screen.cursor, row(screen)?);
        let has_hint = HINTS.iter().any(|(name, hint)| *name == agent && row.contains(hint));
        let is_marked = || {
            let before: String = row.chars().take(column).collect();
            let behind: String = row.chars().skip(column).collect();
            before.trim_end().ends_with(MARKS) && before.matches(MARKS).count() == 1 && behind.trim_matches(EDGES).is_empty()
        };
        let is_empty = has_hint || is_marked();
        is_empty.then(|| Self { row: row.to_owned(), column, has_cursor: screen.has_cursor, below: below(screen) })
    }

    /// What it holds: nothing, or exactly `line`. None if it holds anything else or is not there.
    pub fn holds(&self, screen: &Screen, line: &str) -> Option<Holds> {
        let (row, column) = (row(screen)?, screen.cursor.0);
        if row == self.row && column == self.column && screen.has_cursor == self.has_cursor && below(screen) == self.below {
            return Some(Holds::Nothing);
        }
        // The hint is gone. Where tmux and the agent disagree about the width of a sign, the row has other spaces.
        let sign = squeezed(row.trim_end_matches(EDGES)).strip_suffix(&squeezed(line)).map(str::to_owned)?;
        let is_line = squeezed(&self.row).starts_with(&sign) && column == self.column + line.chars().count();
        is_line.then_some(Holds::Line)
    }
}

fn row(screen: &Screen) -> Option<&str> {
    screen.rows.get(screen.cursor.1).map(String::as_str)
}

/// The rows below the cursor's.
fn below(screen: &Screen) -> Vec<String> {
    let mut rows: Vec<String> = screen.rows.iter().skip(screen.cursor.1 + 1).cloned().collect();
    while rows.pop_if(|row| row.is_empty()).is_some() {}
    rows
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "Please call check_messages";

    fn screen(rows: &[&str], cursor: (usize, usize)) -> Screen {
        let rows = rows.iter().map(|row| (*row).to_owned()).collect();
        Screen { is_in_mode: false, is_locked: false, width: 80, cursor, has_cursor: true, rows }
    }

    #[test]
    fn prompt_is_armed_only_empty() {
        let cases = [
            ("goose", "🪿 Enter to send · Ctrl+J newline", 3, true),
            ("goose", " Enter to send · Ctrl+J newline", 3, true), // tmux does not know the sign
            ("goose", " h  alf", 7, false),
            ("goose", "( O)>", 6, true), // an older one
            ("gemini", " >   Type your message or @path/to/file", 3, true),
            ("gemini", " > half", 7, false),
            ("gemini", " > half", 3, false), // the cursor is at its beginning
            ("other", "│ ❯                │", 4, true),
            ("other", "│ ❯ half           │", 8, false),
            ("other", "> half >", 9, false),
            ("other", "", 0, false),
            ("other", " Enter to send", 1, false), // a hint of another agent
        ];
        for (agent, row, column, is_empty) in cases {
            let prompt = Prompt::empty(&screen(&["above", row], (column, 1)), agent);
            assert_eq!(prompt.is_some(), is_empty, "{agent}: {row:?}");
        }
        assert!(Prompt::empty(&screen(&[], (0, 0)), "other").is_none());
    }

    #[test]
    fn prompt_holds_nothing_or_the_line() {
        let empty = screen(&["", " >   Type your message or @path/to/file", "footer", ""], (3, 1));
        let prompt = Prompt::empty(&empty, "gemini").expect("it is empty");
        let holds = |rows: &[&str], cursor| prompt.holds(&screen(rows, cursor), LINE);
        let hint = " >   Type your message or @path/to/file";
        assert_eq!(holds(&["an answer", "", hint, "footer"], (3, 2)), Some(Holds::Nothing));
        assert_eq!(holds(&["", hint, "footer"], (4, 1)), None);
        assert_eq!(holds(&["", hint, "footer", " > half"], (3, 1)), None);
        assert_eq!(holds(&["", hint], (3, 1)), None);
        assert_eq!(holds(&["", " > half", "footer"], (3, 1)), None);
        let typed = format!(" > {LINE}");
        assert_eq!(holds(&["", &typed, "other footer"], (3 + LINE.len(), 1)), Some(Holds::Line));
        assert_eq!(holds(&["", &typed], (3, 1)), None);
        for mixed in [format!("{typed} x"), format!(" > x{LINE}"), format!(" > {}", &LINE[1..])] {
            assert_eq!(holds(&["", &mixed], (3 + LINE.len(), 1)), None, "{mixed}");
        }
        let hidden = Screen { has_cursor: false, ..empty };
        assert_eq!(prompt.holds(&hidden, LINE), None);
    }
}
