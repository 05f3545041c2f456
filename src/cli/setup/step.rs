//! A step of the setup: what it is, whether there is something to do, and what became of it.

use crate::{
    cli::{
        call::CallFailed,
        exit::Failure,
        out::{Look, Out, Tone, write_out},
    },
    wire::text::printable_line,
};
use serde::Serialize;
use std::pin::Pin;

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was done.
    Done,
    /// There was nothing to do.
    Already,
    /// It was taken back.
    Undone,
    /// It could not be done here, and that is no fault.
    Skipped,
    /// It could not be done.
    Failed,
    /// It would be done.
    Planned,
}

impl State {
    fn shown(self) -> (Tone, &'static str) {
        match self {
            Self::Done => (Tone::Good, "done"),
            Self::Already => (Tone::Dim, "nothing to do"),
            Self::Undone => (Tone::Good, "undone"),
            Self::Skipped => (Tone::Warn, "left out"),
            Self::Failed => (Tone::Bad, "NOT DONE"),
            Self::Planned => (Tone::Plain, "to do"),
        }
    }
}

/// Why something was not done, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What happened.
    pub what: String,
    /// What to do next.
    pub help: String,
}

impl Problem {
    /// A problem.
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }
}

impl From<CallFailed> for Problem {
    fn from(error: CallFailed) -> Self {
        Self::new(error.to_string(), "mend what it says, then run this again; `claude-peers doctor` looks closer")
    }
}

/// How doing a step ended.
#[derive(Debug)]
pub enum Ended {
    /// Well; with what there is to say about it.
    Well(String),
    /// It could not be done here, and that is no fault.
    LeftOut(Problem),
}

type Doing = Pin<Box<dyn Future<Output = Result<Ended, Problem>>>>;

/// A step.
pub struct Step {
    name: &'static str,
    /// What it does, as an order: `write …`.
    what: String,
    help: Option<String>,
    todo: Todo,
}

enum Todo {
    Nothing(State),
    Do(Doing),
}

impl Step {
    /// Something to do.
    pub fn to_do(
        name: &'static str,
        what: impl Into<String>,
        doing: impl Future<Output = Result<Ended, Problem>> + 'static,
    ) -> Self {
        Self { name, what: what.into(), help: None, todo: Todo::Do(Box::pin(doing)) }
    }

    /// Nothing to do: it is so already.
    pub fn already(name: &'static str, what: impl Into<String>) -> Self {
        Self { name, what: what.into(), help: None, todo: Todo::Nothing(State::Already) }
    }

    /// It cannot be done here, and that is no fault.
    pub fn left_out(name: &'static str, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { name, what: what.into(), help: Some(help.into()), todo: Todo::Nothing(State::Skipped) }
    }

    /// It cannot be done.
    pub fn impossible(name: &'static str, Problem { what, help }: Problem) -> Self {
        Self { name, what, help: Some(help), todo: Todo::Nothing(State::Failed) }
    }

    /// With something a person should know besides.
    pub fn note(mut self, note: Option<String>) -> Self {
        self.help = note.or(self.help);
        self
    }
}

/// A step as it ended.
#[derive(Debug, Serialize)]
struct Report {
    step: &'static str,
    state: State,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

#[derive(Serialize)]
struct Reports<'a> {
    steps: &'a [Report],
    ok: bool,
}

/// Takes steps and tells of them.
pub struct Walk {
    out: Out,
    /// Nothing is done, only said.
    dry: bool,
    /// What a step that was done is called.
    done: State,
    reports: Vec<Report>,
}

impl Walk {
    /// Takes steps; with `dry`, only says them. `undo`: they take something back.
    pub fn new(out: Out, dry: bool, undo: bool) -> Self {
        Self { out, dry, done: if undo { State::Undone } else { State::Done }, reports: Vec::new() }
    }

    /// A line for people.
    pub fn say(&self, line: impl FnOnce(Look) -> String) -> Result<(), Failure> {
        if self.out.json { Ok(()) } else { write_out(&(line(self.out.look) + "\n")) }
    }

    /// Says what the step does, does it, and says how that went.
    pub async fn take(&mut self, step: Step) -> Result<(), Failure> {
        let Step { name, what, help, todo } = step;
        if !self.out.json {
            let look = self.out.look;
            write_out(&format!(
                "  {}  {} … ",
                look.paint(Tone::Dim, format!("{:12}", name.replace('_', " "))),
                printable_line(&what)
            ))?;
        }
        let (state, detail, help) = match todo {
            Todo::Nothing(state) => (state, String::new(), help),
            Todo::Do(_) if self.dry => (State::Planned, String::new(), help),
            Todo::Do(doing) => match doing.await {
                Ok(Ended::Well(detail)) => (self.done, detail, help),
                Ok(Ended::LeftOut(problem)) => (State::Skipped, problem.what, Some(problem.help)),
                Err(problem) => (State::Failed, problem.what, Some(problem.help)),
            },
        };
        let colon = if detail.is_empty() { "" } else { ": " };
        if !self.out.json {
            let (tone, word) = state.shown();
            let look = self.out.look;
            let mut text = format!("{}{colon}{}\n", look.paint(tone, word), printable_line(&detail));
            if let Some(help) = help.as_ref().filter(|_| state != State::Failed) {
                text += &format!("  {:12}  {}\n", "", look.paint(Tone::Dim, printable_line(help)));
            }
            write_out(&text)?;
        }
        self.reports.push(Report { step: name, state, what: format!("{what}{colon}{detail}"), help });
        Ok(())
    }

    /// Whether every step so far was done or needed nothing.
    pub fn is_well(&self) -> bool {
        self.reports.iter().all(|report| report.state != State::Failed)
    }

    /// Whether this step could not be done here, and that is no fault.
    pub fn left_out(&self, step: &str) -> bool {
        self.reports.iter().any(|report| report.step == step && report.state == State::Skipped)
    }

    /// Tells of what was not done; a failure if there is any.
    pub fn end(self) -> Result<(), Failure> {
        let ok = self.is_well();
        if self.out.json {
            self.out.json(&Reports { steps: &self.reports, ok })?;
        }
        if ok {
            return Ok(());
        }
        self.say(|look| {
            let mut text = format!("\n{}", look.paint(Tone::Bad, "Not done:"));
            for Report { step, what, help, .. } in self.reports.iter().filter(|report| report.state == State::Failed) {
                text += &format!("\n  {}: {}", look.paint(Tone::Strong, step.replace('_', " ")), printable_line(what));
                text += &help
                    .as_ref()
                    .map(|help| format!("\n    {} {}", look.paint(Tone::Strong, "help:"), printable_line(help)))
                    .unwrap_or_default();
            }
            text
        })?;
        Err(Failure::Told)
    }
}
