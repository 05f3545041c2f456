//! Steps: what there is to do, doing it, and the report.

use crate::{
    console::{
        exit::{Failure, Problem},
        out::{Look, Out, Tone},
        report::{Columns, Row},
    },
    platform::call::{Call, CallFailed},
};
use serde::Serialize;
use std::pin::Pin;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Done,
    Already,
    Undone,
    /// It cannot be done here, and need not be.
    Skipped,
    Failed,
    Planned,
}

impl State {
    fn mark(self) -> (Tone, &'static str) {
        match self {
            Self::Done => (Tone::Good, "done"),
            Self::Already => (Tone::Dim, "already"),
            Self::Undone => (Tone::Good, "undone"),
            Self::Skipped => (Tone::Warn, "skipped"),
            Self::Failed => (Tone::Bad, "FAILED"),
            Self::Planned => (Tone::Plain, "to do"),
        }
    }
}

impl From<CallFailed> for Problem {
    fn from(error: CallFailed) -> Self {
        Self::new(error.to_string(), "correct that, then run this again; `claude-peers doctor` tells more")
    }
}

pub enum Ended {
    Done,
    /// Done, and worth other words than the step's own.
    Said(String),
    Skipped(Problem),
}

impl From<()> for Ended {
    fn from((): ()) -> Self {
        Self::Done
    }
}

enum Todo {
    Nothing(State),
    Do(Pin<Box<dyn Future<Output = Result<Ended, Problem>>>>),
}

pub struct Step {
    /// Another name than the group's.
    name: Option<&'static str>,
    /// The step as an order: `write …`.
    what: String,
    help: Option<String>,
    todo: Todo,
}

impl Step {
    fn new(what: impl Into<String>, help: Option<String>, todo: Todo) -> Self {
        Self { name: None, what: what.into(), help, todo }
    }

    pub fn to_do<E: Into<Ended>>(what: impl Into<String>, doing: impl Future<Output = Result<E, Problem>> + 'static) -> Self {
        Self::new(what, None, Todo::Do(Box::pin(async { doing.await.map(Into::into) })))
    }

    /// Makes the calls up to the first that fails; done already where there are none.
    pub fn calls(what: impl Into<String>, calls: Vec<Call>) -> Self {
        if calls.is_empty() { Self::already(what) } else { Self::to_do(what, run(calls)) }
    }

    pub fn already(what: impl Into<String>) -> Self {
        Self::new(what, None, Todo::Nothing(State::Already))
    }

    pub fn skipped(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(what, Some(help.into()), Todo::Nothing(State::Skipped))
    }

    pub fn failed(problem: impl Into<Problem>) -> Self {
        let Problem { what, help } = problem.into();
        Self::new(what, Some(help), Todo::Nothing(State::Failed))
    }

    pub fn named(self, name: &'static str) -> Self {
        Self { name: Some(name), ..self }
    }

    /// Adds something worth knowing.
    pub fn note(mut self, note: Option<String>) -> Self {
        self.help = note.or(self.help);
        self
    }
}

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

impl Report {
    fn row(&self, help: Option<&str>, look: Look) -> String {
        let name = self.step.replace('_', " ");
        Row { mark: self.state.mark(), name: &name, text: &self.what, help }.render(Columns::WORDS, look)
    }
}

#[derive(Serialize)]
struct Reports<'a> {
    steps: &'a [Report],
    ok: bool,
}

/// Takes one step after the other.
pub struct Walk {
    out: Out,
    dry: bool,
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

    /// Takes the steps of a group; a plan that failed is a failed step.
    pub async fn take<P: Into<Problem>>(
        &mut self,
        group: &'static str,
        steps: Result<impl IntoIterator<Item = Step>, P>,
    ) -> Result<(), Failure> {
        let steps: Vec<_> = steps.map_or_else(|problem| vec![Step::failed(problem)], |steps| steps.into_iter().collect());
        for Step { name, what, help, todo } in steps {
            let (state, what, help) = self.go(what, help, todo).await?;
            let report = Report { step: name.unwrap_or(group), state, what, help };
            // The help of failed steps comes at the end.
            let help = report.help.as_deref().filter(|_| state != State::Failed);
            self.out.human(|look| look.erase().to_owned() + &report.row(help, look))?;
            self.reports.push(report);
        }
        Ok(())
    }

    async fn go(&self, what: String, help: Option<String>, todo: Todo) -> Result<(State, String, Option<String>), Failure> {
        let because = |problem: &Problem| format!("{what}: {}", problem.what);
        let doing = match todo {
            Todo::Nothing(state) => return Ok((state, what, help)),
            Todo::Do(_) if self.dry => return Ok((State::Planned, what, help)),
            Todo::Do(doing) => doing,
        };
        self.out.transient(&format!("{what} …"))?;
        Ok(match doing.await {
            Ok(Ended::Done) => (self.done, what, help),
            Ok(Ended::Said(said)) => (self.done, said, help),
            Ok(Ended::Skipped(problem)) => (State::Skipped, because(&problem), Some(problem.help)),
            Err(problem) => (State::Failed, because(&problem), Some(problem.help)),
        })
    }

    pub fn is_well(&self) -> bool {
        self.reports.iter().all(|report| report.state != State::Failed)
    }

    pub fn has_skipped(&self, step: &str) -> bool {
        self.reports.iter().any(|report| report.step == step && report.state == State::Skipped)
    }

    /// Repeats the failed steps with their help; a failure if there are any.
    pub fn end(self) -> Result<(), Failure> {
        let ok = self.is_well();
        if self.out.json {
            self.out.json(&Reports { steps: &self.reports, ok })?;
        }
        if ok {
            return Ok(());
        }
        let failed = self.reports.iter().filter(|report| report.state == State::Failed);
        self.out.human(|look| {
            let rows: String = failed.map(|report| report.row(report.help.as_deref(), look)).collect();
            format!("\n{}\n{rows}", look.paint(Tone::Bad, "Not done:"))
        })?;
        Err(Failure::Told)
    }
}
