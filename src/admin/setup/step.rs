//! Steps: planning them, taking them, and reporting on them.

use crate::{
    console::{Columns, Failure, Look, Out, Report, Row, Tone},
    platform::call::{Call, CallFailed},
};
use serde::Serialize;
use std::pin::Pin;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Done,
    Already,
    Undone,
    /// It cannot be done here and is not needed.
    Skipped,
    Failed,
    Planned,
}

impl Outcome {
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

impl From<CallFailed> for Failure {
    fn from(error: CallFailed) -> Self {
        Self::local(error.to_string(), "correct that, then run this again; `claude-peers doctor` tells more")
    }
}

/// Returns the words that replace the step's own once it is done.
type Doing = Pin<Box<dyn Future<Output = Result<Option<String>, Failure>>>>;

#[derive(Serialize)]
pub struct Step {
    /// [`Walk::take`] names the steps that have no name.
    #[serde(rename = "step")]
    name: &'static str,
    state: Outcome,
    /// The step as an order: `write …`.
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    #[serde(skip)]
    doing: Option<Doing>,
    /// The help that makes a failure a skipped step.
    #[serde(skip)]
    may_fail: Option<&'static str>,
}

impl Step {
    fn new(state: Outcome, what: impl Into<String>, help: Option<String>) -> Self {
        Self { name: "", state, what: what.into(), help, doing: None, may_fail: None }
    }

    pub fn to_do(what: impl Into<String>, doing: impl Future<Output = Result<(), Failure>> + 'static) -> Self {
        Self::telling(what, async { doing.await.map(|()| None) })
    }

    /// A step with other words once it is done.
    pub fn telling(what: impl Into<String>, doing: impl Future<Output = Result<Option<String>, Failure>> + 'static) -> Self {
        Self { doing: Some(Box::pin(doing)), ..Self::new(Outcome::Planned, what, None) }
    }

    /// Makes the calls up to the first that fails; done already where there are none.
    pub fn calls(what: impl Into<String>, calls: impl IntoIterator<Item = Option<Call>>) -> Self {
        let calls: Vec<_> = calls.into_iter().flatten().collect();
        if calls.is_empty() {
            return Self::already(what);
        }
        Self::to_do(what, async {
            for call in calls {
                call.run().await?;
            }
            Ok(())
        })
    }

    pub fn already(what: impl Into<String>) -> Self {
        Self::new(Outcome::Already, what, None)
    }

    pub fn skipped(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Outcome::Skipped, what, Some(help.into()))
    }

    pub fn failed(failure: impl Into<Failure>) -> Self {
        let Report { message, help, .. } = failure.into().report.unwrap_or_default();
        Self::new(Outcome::Failed, message, help)
    }

    pub fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    pub fn may_fail(self, help: &'static str) -> Self {
        Self { may_fail: Some(help), ..self }
    }

    /// Adds a note.
    pub fn note(self, note: Option<String>) -> Self {
        Self { help: note.or(self.help), ..self }
    }

    /// Takes a planned step, which becomes `done` if all goes well.
    async fn take(&mut self, doing: Doing, done: Outcome) {
        match doing.await {
            Ok(said) => {
                self.state = done;
                self.what = said.unwrap_or(std::mem::take(&mut self.what));
            }
            Err(failure) => {
                let Report { message, help, .. } = failure.report.unwrap_or_default();
                self.state = if self.may_fail.is_some() { Outcome::Skipped } else { Outcome::Failed };
                self.what += &format!(": {message}");
                self.help = self.may_fail.map(str::to_owned).or(help);
            }
        }
    }

    fn has_failed(&self) -> bool {
        self.state == Outcome::Failed
    }

    fn row(&self, look: Look, help: Option<&str>) -> String {
        let name = self.name.replace('_', " ");
        Row { mark: self.state.mark(), name: &name, text: &self.what, help }.render(Columns::WORDS, look)
    }
}

/// Takes one step after the other.
pub struct Walk {
    out: Out,
    dry: bool,
    done: Outcome,
    steps: Vec<Step>,
}

impl Walk {
    pub fn new(out: Out, dry: bool, undo: bool) -> Self {
        Self { out, dry, done: if undo { Outcome::Undone } else { Outcome::Done }, steps: Vec::new() }
    }

    pub fn say(&self, line: impl FnOnce(Look) -> String) -> Result<(), Failure> {
        self.out.human(|look| line(look) + "\n")
    }

    /// Takes the steps of a group; a plan that failed is a failed step.
    pub async fn take<P: Into<Failure>>(
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
                step.take(doing, self.done).await;
            }
            if step.has_failed() && self.steps.iter().any(|earlier| earlier.has_failed() && earlier.what == step.what) {
                continue; // two steps read the same file
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
        Err(Failure::TOLD)
    }
}
