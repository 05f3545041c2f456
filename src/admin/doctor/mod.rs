//! `doctor`: checks everything the system needs, and says what is wrong and how to fix it.
//!
//! Promises: every check ends in bounded time with a finding, even if others fail. Only `--fix` changes anything: it applies the safe
//! fixes, then checks everything again, so the report shows the result. Checks run one after the other and hold no lock; connecting
//! to the broker's socket may start the broker.

mod claude;
mod clock;
mod database;
mod fix;
mod programs;
mod scene;
mod service;
mod sessions;
mod settings;
mod sockets;

use crate::{
    agents::claude::Claude,
    console::{
        exit::Failure,
        out::{Look, Out, Tone},
        report::{Columns, Row},
    },
};
use fix::Fix;
use scene::Scene;
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Apply the safe fixes: start failed and stopped sockets, remove left-over socket files, correct permissions, register with
    /// Claude Code
    #[arg(long)]
    pub fix: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failed,
    Skipped,
}

impl Verdict {
    const ALL: [Self; 4] = [Self::Ok, Self::Warning, Self::Failed, Self::Skipped];

    fn sign(self) -> (&'static str, Tone) {
        match self {
            Self::Ok => ("ok", Tone::Good),
            Self::Warning => ("warning", Tone::Warn),
            Self::Failed => ("FAILED", Tone::Bad),
            Self::Skipped => ("skipped", Tone::Dim),
        }
    }
}

#[derive(Debug, Serialize)]
struct Finding {
    /// The name of the check, which [`Report::add`] puts in.
    check: &'static str,
    state: Verdict,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    /// Whether all is well after `--fix` has tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<bool>,
    /// The steps of `--fix`.
    #[serde(skip)]
    fixes: Vec<Fix>,
}

impl Finding {
    fn new(state: Verdict, what: impl Into<String>, help: Option<String>) -> Self {
        Self { check: "", state, what: what.into(), help, fixed: None, fixes: Vec::new() }
    }

    fn fixes(mut self, fixes: impl IntoIterator<Item = Fix>) -> Self {
        self.fixes.extend(fixes);
        self
    }
}

fn ok(what: impl Into<String>) -> Finding {
    Finding::new(Verdict::Ok, what, None)
}

fn skipped(what: impl Into<String>) -> Finding {
    Finding::new(Verdict::Skipped, what, None)
}

fn warning(what: impl Into<String>, help: impl Into<String>) -> Finding {
    Finding::new(Verdict::Warning, what, Some(help.into()))
}

fn failed(what: impl Into<String>, help: impl Into<String>) -> Finding {
    Finding::new(Verdict::Failed, what, Some(help.into()))
}

#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Finding>,
    /// No check has failed.
    ok: bool,
}

impl Report {
    fn add(&mut self, check: &'static str, findings: impl IntoIterator<Item = Finding>) {
        self.checks.extend(findings.into_iter().map(|finding| Finding { check, ..finding }));
    }

    /// Runs all checks, causes before their effects.
    async fn make() -> Self {
        let scene = Scene::look().await;
        let program = Claude::find();
        let mut report = Self { checks: Vec::new(), ok: true };
        report.add("settings", settings::check(&scene).await);
        report.add("service", service::check(&scene).await);
        report.add("units", service::shadows(&scene));
        report.add("unix-socket", [sockets::unix(&scene)]);
        report.add("tcp-socket", [sockets::tcp(&scene).await]);
        report.add("versions", programs::check(&scene).await);
        report.add("database", database::check(&scene));
        report.add("clock", [clock::check(&scene)]);
        report.add("claude", [claude::program(&program).await]);
        report.add("registration", claude::registration(&scene, program.ok().flatten()).await);
        let [hook, rule] = claude::settings(&scene);
        report.add("hooks", [hook]);
        report.add("allow-rule", [rule]);
        report.add("session", sessions::check(&scene));
        report.ok = report.checks.iter().all(|finding| finding.state != Verdict::Failed);
        report
    }
}

pub async fn run(args: Args, out: Out) -> Result<(), Failure> {
    let mut report = Report::make().await;
    if args.fix && report.checks.iter().any(|finding| !finding.fixes.is_empty()) {
        let tried = fix::apply(&report.checks).await;
        report = Report::make().await;
        fix::note(&mut report.checks, tried);
    }
    out.answer(&report, render)?;
    if report.ok { Ok(()) } else { Err(Failure::Told) }
}

fn render(report: &Report, look: Look) -> String {
    let mut text = String::new();
    for Finding { check, state, what, help, fixed, .. } in &report.checks {
        let (sign, tone) = state.sign();
        let what = if *fixed == Some(true) { &format!("fixed: {what}") } else { what };
        let row = Row { mark: (tone, sign), name: check, text: what, help: help.as_deref() };
        text += &row.render(Columns::WORDS, look);
    }
    let count = |state| report.checks.iter().filter(|finding| finding.state == state).count();
    let counts = Verdict::ALL.map(|state| (count(state), state.sign().0.to_lowercase()));
    let counts: Vec<_> = counts.iter().filter(|(count, _)| *count > 0).map(|(count, sign)| format!("{count} {sign}")).collect();
    text += &format!("\n{} checks: {}\n", report.checks.len(), counts.join(", "));
    if report.checks.iter().any(|finding| !finding.fixes.is_empty() && finding.fixed.is_none()) {
        text += "`claude-peers doctor --fix` applies the safe fixes.\n";
    }
    text
}
