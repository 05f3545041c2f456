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
    /// Done, in other words than the step's own.
    Said(String),
    Skipped(Problem),
}

impl From<()> for Ended {
    fn from((): ()) -> Self {
        Self::Done
    }
}

type Doing = Pin<Box<dyn Future<Output = Result<Ended, Problem>>>>;

#[derive(Serialize)]
pub struct Step {
    /// [`Walk::take`] names the steps that have no name.
    #[serde(rename = "step")]
    name: &'static str,
    state: State,
    /// The step as an order: `write …`.
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    #[serde(skip)]
    doing: Option<Doing>,
}

impl Step {
    fn new(state: State, what: impl Into<String>, help: Option<String>) -> Self {
        Self { name: "", state, what: what.into(), help, doing: None }
    }

    pub fn to_do<E: Into<Ended>>(what: impl Into<String>, doing: impl Future<Output = Result<E, Problem>> + 'static) -> Self {
        let doing: Doing = Box::pin(async { doing.await.map(Into::into) });
        Self { doing: Some(doing), ..Self::new(State::Planned, what, None) }
    }

    /// Makes the calls up to the first that fails; done already where there are none.
    pub fn calls(what: impl Into<String>, calls: Vec<Call>) -> Self {
        if calls.is_empty() { Self::already(what) } else { Self::to_do(what, run(calls)) }
    }

    pub fn already(what: impl Into<String>) -> Self {
        Self::new(State::Already, what, None)
    }

    pub fn skipped(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(State::Skipped, what, Some(help.into()))
    }

    pub fn failed(problem: impl Into<Problem>) -> Self {
        let Problem { what, help } = problem.into();
        Self::new(State::Failed, what, Some(help))
    }

    pub fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// Adds something worth knowing.
    pub fn note(self, note: Option<String>) -> Self {
        Self { help: note.or(self.help), ..self }
    }

    fn has_failed(&self) -> bool {
        self.state == State::Failed
    }

    fn fall_short(&mut self, state: State, problem: Problem) {
        self.state = state;
        self.what = format!("{}: {}", self.what, problem.what);
        self.help = Some(problem.help);
    }

    fn row(&self, look: Look, help: Option<&str>) -> String {
        let name = self.name.replace('_', " ");
        Row { mark: self.state.mark(), name: &name, text: &self.what, help }.render(Columns::WORDS, look)
    }
}

pub async fn run(calls: Vec<Call>) -> Result<(), Problem> {
    for call in calls {
        call.run().await?;
    }
    Ok(())
}

/// Takes one step after the other.
pub struct Walk {
    out: Out,
    dry: bool,
    done: State,
    steps: Vec<Step>,
}

impl Walk {
    pub fn new(out: Out, dry: bool, undo: bool) -> Self {
        Self { out, dry, done: if undo { State::Undone } else { State::Done }, steps: Vec::new() }
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
        for mut step in steps {
            if step.name.is_empty() {
                step.name = group;
            }
            if let Some(doing) = step.doing.take().filter(|_| !self.dry) {
                self.out.transient(&format!("{} …", step.what))?;
                match doing.await {
                    Ok(Ended::Done) => step.state = self.done,
                    Ok(Ended::Said(what)) => (step.state, step.what) = (self.done, what),
                    Ok(Ended::Skipped(problem)) => step.fall_short(State::Skipped, problem),
                    Err(problem) => step.fall_short(State::Failed, problem),
                }
            }
            // The help of failed steps comes at the end.
            let help = step.help.as_deref().filter(|_| !step.has_failed());
            self.out.human(|look| look.erase().to_owned() + &step.row(look, help))?;
            self.steps.push(step);
        }
        Ok(())
    }

    pub fn is_well(&self) -> bool {
        !self.steps.iter().any(Step::has_failed)
    }

    /// Repeats the failed steps with their help; a failure if there are any.
    pub fn end(self) -> Result<(), Failure> {
        let ok = self.is_well();
        if self.out.json {
            self.out.json(&serde_json::json!({ "steps": self.steps, "ok": ok }))?;
        }
        if ok {
            return Ok(());
        }
        let failed = self.steps.iter().filter(|step| step.has_failed());
        self.out.human(|look| {
            let rows: String = failed.map(|step| step.row(look, step.help.as_deref())).collect();
            format!("\n{}\n{rows}", look.paint(Tone::Bad, "Not done:"))
        })?;
        Err(Failure::Told)
    }
}
