//! `ask`: a question to a session, and its answer.

use super::{candidates, send};
use crate::{
    agents::shown,
    client::{Client, with_query},
    console::{Failure, LIMITS, Look, Out},
    wire::{
        Acknowledged, Asked, CLI_SENDER, PeerRef, Receipt, Result as Answered,
        text::{printable, printable_line},
    },
};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The session: an id or a name, as `claude-peers peers` shows them
    #[arg(add = candidates::peers())]
    pub peer: PeerRef,
    /// The question; words are joined by spaces, `-` alone reads standard input (its last line break is left out)
    #[arg(required = true)]
    pub text: Vec<String>,
    /// How many seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub wait: u32,
}

pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    // Before the question: Ctrl-C never hides its id.
    let interrupts = signal(SignalKind::interrupt());
    let mut interrupts = interrupts.map_err(|e| Failure::local(format!("listening for Ctrl-C: {e}"), LIMITS))?;
    let question: Receipt = send::send(&send::message(&args.peer, &args.text)?, broker, out).await?;
    out.aside(&waiting(&question, args.wait));
    let asked = tokio::select! {
        asked = answer(&question, Duration::from_secs(args.wait.into()), broker, out) => asked?,
        Some(()) = interrupts.recv() => return Err(stopped(&question)),
    };
    let Some(answer) = &asked.answer else { return Err(no_answer(&asked)) };
    out.answer(&asked, |_, look| render(&answer.text, look))?;
    let read = format!("/v1/messages/{}/read", answer.receipt.message_id);
    let _: Acknowledged = broker.post(&read, None, &json!({})).await?;
    Ok(())
}

/// Waits for the answer, also across a restart of the broker.
async fn answer(question: &Receipt, patience: Duration, broker: &Client, out: Out) -> Answered<Asked> {
    let deadline = Instant::now() + patience;
    let attempt = async || {
        let left = deadline.saturating_duration_since(Instant::now());
        let seconds = json!({ "waitSeconds": left.as_secs_f64().ceil() as u64 });
        let path = with_query(&format!("/v1/messages/{}/reply", question.message_id), &seconds);
        broker.get_waiting(&path, None, left).await
    };
    send::patiently(deadline, out, attempt).await
}

fn waiting(question: &Receipt, seconds: u32) -> String {
    let (id, name) = (&question.message_id, printable_line(&question.to_name));
    format!("Asked {name} ({id}); waiting up to {seconds} s for the answer. Ctrl-C stops the waiting.")
}

fn stopped(question: &Receipt) -> Failure {
    let (id, name) = (&question.message_id, printable_line(&question.to_name));
    Failure::interrupted(format!("stopped waiting for the answer to {id} from {name}; the question stays"), later(question))
}

/// Where an answer that comes after the wait can be found.
fn later(question: &Receipt) -> &'static str {
    match question.from.as_str() {
        CLI_SENDER => "a later answer will be in `claude-peers inbox`",
        _ => "a later answer will arrive as a message to this session",
    }
}

fn render(text: &str, look: Look) -> String {
    // A script gets the text as it is; on a terminal, control characters are made visible.
    let text = if look.terminal { printable(text) } else { text.into() };
    if text.ends_with('\n') { text.into_owned() } else { format!("{text}\n") }
}

fn no_answer(asked: &Asked) -> Failure {
    let question = &asked.question;
    let (id, name) = (&question.message_id, printable_line(&question.to_name));
    Failure::no_answer(format!("no answer to {id} from {name} yet: {}", shown::fate(asked)), later(question))
}
