//! A step of the setup: what it is, whether there is something to do, and what became of it.

use crate::{
    console::{
        exit::{Failure, Problem},
        out::{Look, Out, Tone},
    },
    platform::call::{Call, CallFailed},
    wire::text::printable_line,
};
use serde::Serialize;
use std::pin::Pin;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Done,
    Already,
    Undone,
    /// It could not be done here, and that is no fault.
    Skipped,
    Failed,
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

impl From<CallFailed> for Problem {
    fn from(error: CallFailed) -> Self {
        Self::new(error.to_string(), "mend what it says, then run this again; `claude-peers doctor` looks closer")
    }
}

pub enum Ended {
    /// Well; with what there is to say about it.
    Well(String),
    /// It could not be done here, and that is no fault.
    LeftOut(Problem),
}

impl From<()> for Ended {
    fn from((): ()) -> Self {
        Self::Well(String::new())
    }
}

pub struct Step {
    name: &'static str,
    /// What it does, as an order: `write …`.
    what: String,
    help: Option<String>,
    todo: Todo,
}

enum Todo {
    Nothing(State),
    Do(Pin<Box<dyn Future<Output = Result<Ended, Problem>>>>),
}

impl Step {
    fn new(name: &'static str, what: impl Into<String>, help: Option<String>, todo: Todo) -> Self {
        Self { name, what: what.into(), help, todo }
    }

    pub fn to_do<E: Into<Ended>>(
        name: &'static str,
        what: impl Into<String>,
        doing: impl Future<Output = Result<E, Problem>> + 'static,
    ) -> Self {
        Self::new(name, what, None, Todo::Do(Box::pin(async { doing.await.map(Into::into) })))
    }

    /// Calls to make, one after the other, up to the first that fails; without any it is so already.
    pub fn calls(name: &'static str, what: impl Into<String>, calls: Vec<Call>) -> Self {
        if calls.is_empty() { Self::already(name, what) } else { Self::to_do(name, what, run(calls)) }
    }

    pub fn already(name: &'static str, what: impl Into<String>) -> Self {
        Self::new(name, what, None, Todo::Nothing(State::Already))
    }

    /// It cannot be done here, and that is no fault.
    pub fn left_out(name: &'static str, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(name, what, Some(help.into()), Todo::Nothing(State::Skipped))
    }

    pub fn impossible(name: &'static str, problem: impl Into<Problem>) -> Self {
        let Problem { what, help } = problem.into();
        Self::new(name, what, Some(help), Todo::Nothing(State::Failed))
    }

    /// With something a person should know besides.
    pub fn note(mut self, note: Option<String>) -> Self {
        self.help = note.or(self.help);
        self
    }
}

/// Makes the calls up to the first that fails.
pub async fn run(calls: Vec<Call>) -> Result<(), Problem> {
    for call in calls {
        call.run().await?;
    }
    Ok(())
}

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

pub struct Walk {
    out: Out,
    dry: bool,
    /// What a step that was done is called.
    done: State,
    reports: Vec<Report>,
}

impl Walk {
    pub fn new(out: Out, dry: bool, undo: bool) -> Self {
        Self { out, dry, done: if undo { State::Undone } else { State::Done }, reports: Vec::new() }
    }

    pub fn say(&self, line: impl FnOnce(Look) -> String) -> Result<(), Failure> {
        self.out.human(|look| line(look) + "\n")
    }

    /// Says what each step does, does it, and says how that went.
    pub async fn take(&mut self, steps: impl IntoIterator<Item = Step>) -> Result<(), Failure> {
        for Step { name, what, help, todo } in steps {
            self.out.human(|look| {
                let name = look.paint(Tone::Dim, format!("{:12}", name.replace('_', " ")));
                format!("  {name}  {} … ", printable_line(&what))
            })?;
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
            self.out.human(|look| {
                let (tone, word) = state.shown();
                let mut text = format!("{}{colon}{}\n", look.paint(tone, word), printable_line(&detail));
                if let Some(help) = help.as_ref().filter(|_| state != State::Failed) {
                    text += &format!("  {:12}  {}\n", "", look.paint(Tone::Dim, printable_line(help)));
                }
                text
            })?;
            self.reports.push(Report { step: name, state, what: format!("{what}{colon}{detail}"), help });
        }
        Ok(())
    }

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
                if let Some(help) = help {
                    text += &format!("\n    {} {}", look.paint(Tone::Strong, "help:"), printable_line(help));
                }
            }
            text
        })?;
        Err(Failure::Told)
    }
}
