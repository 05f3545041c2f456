//! `doctor`: checks everything the system needs, and says what is wrong and how to fix it.
//!
//! Promises: every check ends in bounded time with a finding, even if others fail. Only `--fix` changes anything: it applies the
//! safe fixes, then checks everything again, so the report shows the result. Checks run one after the other and hold no lock.
//! Connecting to the broker's socket may start the broker.

mod agents;
mod claude;
mod clock;
mod database;
mod finding;
mod link;
mod programs;
mod scene;
mod service;
mod sessions;
mod settings;
mod sockets;

use crate::{
    agents::claude::Claude,
    console::{Columns, Failure, Look, Out, Row},
};
use finding::{Finding, Verdict, skipped};
use scene::Scene;
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Apply the safe fixes: start failed and stopped sockets, remove left-over socket files, correct permissions, register with
    /// the agents
    #[arg(long)]
    pub fix: bool,
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
        report.add("database", database::check(&scene.report, scene.broker()));
        report.add("clock", [clock::check(&scene)]);
        let agents = agents::check().await;
        if matches!(program, Ok(None)) && !agents.is_empty() {
            report.add("claude", [skipped("Claude Code is not installed")]);
        } else {
            report.add("claude", [claude::program(&program).await]);
            report.add("registration", claude::registration(&scene, program.ok().flatten()).await);
            let [hook, rule] = claude::settings(&scene);
            report.add("hooks", [hook]);
            report.add("allow-rule", [rule]);
        }
        report.add("agents", agents);
        report.add("session", sessions::check(&scene));
        report.add("link", link::check(&scene).await);
        report.ok = report.checks.iter().all(|finding| finding.state != Verdict::Failed);
        report
    }

    /// Applies the fixes of all findings in order, identical lists of fixes only once. Returns the errors by check.
    async fn fix(&self) -> Vec<(&'static str, Vec<String>)> {
        let (mut tried, mut errors): (Vec<&Finding>, Vec<(_, Vec<String>)>) = (Vec::new(), Vec::new());
        for finding in self.checks.iter().filter(|finding| !finding.fixes.is_empty()) {
            let mut failed = Vec::new();
            match tried.iter().position(|done| done.fixes == finding.fixes) {
                Some(done) => failed.clone_from(&errors[done].1),
                None => {
                    for fix in &finding.fixes {
                        failed.extend(fix.apply().await.err());
                    }
                }
            }
            tried.push(finding);
            errors.push((finding.check, failed));
        }
        errors
    }

    /// Records after the fixes whether they helped.
    fn note(&mut self, tried: &[(&'static str, Vec<String>)]) {
        for (check, errors) in tried {
            for finding in self.checks.iter_mut().filter(|finding| finding.check == *check) {
                let is_well = matches!(finding.state, Verdict::Ok | Verdict::Skipped);
                finding.fixed = Some(is_well);
                let errors = errors.iter().filter(|_| !is_well).map(|error| format!("--fix failed: {error}"));
                let help: Vec<_> = finding.help.take().into_iter().chain(errors).collect();
                finding.help = Some(help.join("\n")).filter(|help| !help.is_empty());
            }
        }
    }
}

pub async fn run(args: Args, out: Out) -> Result<(), Failure> {
    let mut report = Report::make().await;
    if args.fix && report.checks.iter().any(|finding| !finding.fixes.is_empty()) {
        let tried = report.fix().await;
        report = Report::make().await;
        report.note(&tried);
    }
    out.answer(&report, render)?;
    if report.ok { Ok(()) } else { Err(Failure::TOLD) }
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
