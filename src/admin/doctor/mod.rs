//! `doctor`: looks at everything the system needs to work, says what is wrong and what mends it.
//!
//! Promises: every check ends, in bounded time, with a finding of its own, also where others fail; nothing is changed without
//! `--fix`, and with it only what can be done without a person's decision; after mending everything is looked at again, and what is
//! reported is how it is then. Checks run one after the other and lock nothing; connecting to the broker's socket may start it.

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

/// How to look.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Mend what can be mended without a decision of yours: failed and stopped sockets, left-over socket files, permissions,
    /// the registration with Claude Code
    #[arg(long)]
    pub fix: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Failed,
    Skipped,
}

#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    /// `--fix` tried to mend it: whether it is well now.
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<bool>,
    /// What `--fix` does about it.
    #[serde(skip)]
    fixes: Vec<Fix>,
}

impl Finding {
    /// One of a check whose name [`Report::add`] puts in.
    fn new(state: State, what: impl Into<String>, help: Option<String>) -> Self {
        Self { check: "", state, what: what.into(), help, fixed: None, fixes: Vec::new() }
    }

    /// The same, with what `--fix` does about it.
    fn fixes(mut self, fixes: impl IntoIterator<Item = Fix>) -> Self {
        self.fixes.extend(fixes);
        self
    }
}

fn ok(what: impl Into<String>) -> Finding {
    Finding::new(State::Ok, what, None)
}

fn skipped(what: impl Into<String>) -> Finding {
    Finding::new(State::Skipped, what, None)
}

fn warning(what: impl Into<String>, help: impl Into<String>) -> Finding {
    Finding::new(State::Warning, what, Some(help.into()))
}

fn failed(what: impl Into<String>, help: impl Into<String>) -> Finding {
    Finding::new(State::Failed, what, Some(help.into()))
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

    /// One round of all checks, in the order in which a trouble causes the next.
    async fn look() -> Self {
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
        report.ok = report.checks.iter().all(|finding| finding.state != State::Failed);
        report
    }
}

pub async fn run(args: Args, out: Out) -> Result<(), Failure> {
    let mut report = Report::look().await;
    if args.fix && report.checks.iter().any(|finding| !finding.fixes.is_empty()) {
        let tried = fix::apply(&report.checks).await;
        report = Report::look().await;
        fix::note(&mut report.checks, tried);
    }
    out.answer(&report, render)?;
    if report.ok { Ok(()) } else { Err(Failure::TOLD) }
}

fn render(report: &Report, look: Look) -> String {
    const SIGNS: [(State, &str, Tone); 4] = [
        (State::Ok, "ok", Tone::Good),
        (State::Warning, "warning", Tone::Warn),
        (State::Failed, "FAILED", Tone::Bad),
        (State::Skipped, "skipped", Tone::Dim),
    ];
    let mut text = String::new();
    for Finding { check, state, what, help, fixed, .. } in &report.checks {
        let (_, mark, tone) = SIGNS.iter().find(|(known, ..)| known == state).unwrap_or(&SIGNS[0]);
        let what = if *fixed == Some(true) { &format!("mended: {what}") } else { what };
        let row = Row { mark: (*tone, mark), name: check, text: what, help: help.as_deref() };
        text += &row.render(Columns::WORDS, look);
    }
    let count = |wanted| report.checks.iter().filter(|finding| finding.state == wanted).count();
    let counts: Vec<_> = SIGNS
        .iter()
        .map(|(state, sign, _)| (count(*state), sign.to_lowercase()))
        .filter(|(count, _)| *count > 0)
        .map(|(count, sign)| format!("{count} {sign}"))
        .collect();
    text += &format!("\n{} checks: {}\n", report.checks.len(), counts.join(", "));
    if report.checks.iter().any(|finding| !finding.fixes.is_empty() && finding.fixed.is_none()) {
        text += "`claude-peers doctor --fix` mends what needs no decision of yours.\n";
    }
    text
}
