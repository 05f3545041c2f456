//! `doctor`: looks at everything the system needs to work, says what is wrong and what mends it.
//!
//! Promises: every check ends, in bounded time, with a finding of its own, also where others fail; nothing is changed without
//! `--fix`, and with it only what can be done without a person's decision; after mending everything is looked at again, and what is
//! reported is how it is then. Checks run one after the other and lock nothing; connecting to the broker's socket may start it.

mod clock;
mod database;
mod fix;
mod hooks;
mod programs;
mod registration;
mod scene;
mod service;
mod sessions;
mod settings;
mod sockets;
mod versions;

use super::{
    exit::Failure,
    out::{Look, Out, Tone},
};
use crate::wire::text::{printable, printable_line};
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

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Failed,
    Skipped,
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    /// What was found.
    what: String,
    /// What to do about it: a command or a sentence.
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
    fn new(check: &'static str, state: State, what: impl Into<String>) -> Self {
        Self { check, state, what: what.into(), help: None, fixed: None, fixes: Vec::new() }
    }

    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, State::Ok, what)
    }

    fn skipped(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, State::Skipped, what)
    }

    fn warning(check: &'static str, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..Self::new(check, State::Warning, what) }
    }

    fn failed(check: &'static str, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..Self::new(check, State::Failed, what) }
    }

    /// The same, with what `--fix` does about it.
    fn fixes(mut self, fixes: impl IntoIterator<Item = Fix>) -> Self {
        self.fixes.extend(fixes);
        self
    }
}

/// What all checks found.
#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Finding>,
    /// No check has failed.
    ok: bool,
}

/// Looks, mends if asked to, and reports.
pub async fn run(args: Args, out: Out) -> Result<(), Failure> {
    let mut checks = look().await;
    if args.fix && checks.iter().any(|finding| !finding.fixes.is_empty()) {
        let tried = fix::apply(&checks).await;
        checks = look().await;
        fix::note(&mut checks, tried);
    }
    let ok = checks.iter().all(|finding| finding.state != State::Failed);
    out.answer(&Report { checks, ok }, render)?;
    if ok { Ok(()) } else { Err(Failure::Told) }
}

/// One round of all checks, in the order in which a trouble causes the next.
async fn look() -> Vec<Finding> {
    let scene = Scene::look().await;
    let mut findings = settings::check(&scene).await;
    findings.extend(service::check(&scene).await);
    findings.push(sockets::unix(&scene));
    findings.push(sockets::tcp(&scene).await);
    findings.extend(versions::check(&scene).await);
    findings.extend(database::check(&scene));
    findings.push(clock::check(&scene));
    findings.extend(registration::check(&scene).await);
    findings.push(hooks::check(&scene));
    findings.extend(sessions::check(&scene));
    findings
}

fn render(report: &Report, look: Look) -> String {
    const SIGNS: [(State, &str, Tone); 4] = [
        (State::Ok, "ok", Tone::Good),
        (State::Warning, "warning", Tone::Warn),
        (State::Failed, "FAILED", Tone::Bad),
        (State::Skipped, "skipped", Tone::Dim),
    ];
    let width = report.checks.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in &report.checks {
        let (_, sign, tone) = SIGNS.iter().find(|(state, ..)| *state == finding.state).unwrap_or(&SIGNS[0]);
        let sign = look.paint(*tone, format!("{sign:<7}"));
        let fixed = if finding.fixed == Some(true) { "mended: " } else { "" };
        text += &format!("{sign}  {:<width$}  {fixed}{}\n", finding.check, printable_line(&finding.what));
        for line in finding.help.iter().flat_map(|help| help.lines()) {
            text += &format!("{:11}{}\n", "", look.paint(Tone::Strong, printable(line)));
        }
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
