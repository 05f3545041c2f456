//! `send`: a message from the person at the keyboard or a script; inside a session, from that session.

use super::{candidates, peers};
use crate::{
    client::Client,
    console::{Failure, Look, Out, Tone},
    platform::{random, retry::Retry},
    wire::{
        Broadcast, CLI_SENDER, Code, MessageRef, Receipt, Recipient, Result as Answered, Scope, SendRequest, Sent,
        text::printable_line,
    },
};
use serde::de::DeserializeOwned;
use std::{
    io::Read,
    time::{Duration, Instant},
};

/// How long to wait for a broker that is away: longer than a restart takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// First and longest pause between two attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// Most that is read from standard input; far above the broker's limit, which is a setting and decides.
const MAX_INPUT: u64 = 16 * 1024 * 1024;
/// Length of the idempotency key.
const KEY_LENGTH: usize = 32;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// With @repo: also the sessions on other machines whose repository has the same remote URL
    #[arg(long)]
    pub everywhere: bool,
    /// Wake the session even if its user has left; otherwise the message waits there
    #[arg(long)]
    pub wake: bool,
    /// The recipient: an id or a name, as `claude-peers peers` shows them, or all in a scope: @machine, @directory, @repo
    #[arg(add = candidates::recipients())]
    pub peer: Recipient,
    /// The message; words are joined by spaces, `-` alone reads standard input (its last line break is left out)
    #[arg(required = true)]
    pub text: Vec<String>,
    /// The message that this one answers: its id or, outside of a session, its number alone (m1042)
    #[arg(long, value_name = "ID", add = candidates::messages())]
    pub reply_to: Option<MessageRef>,
}

pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    let to = if args.everywhere { everywhere(args.peer)? } else { args.peer };
    let cwd = match to {
        Recipient::One(_) => None,
        Recipient::Everyone(scope) => peers::seen_from(scope)?,
    };
    let (reply_to, wake) = (args.reply_to.map(|id| id.to_string()), args.wake);
    let message = SendRequest { cwd, reply_to, wake, ..message(&to, &args.text)? };
    let sent: Sent = send(&message, broker, out).await?;
    out.answer(&sent, |sent, look| match sent {
        Sent::One(receipt) => render(receipt, look),
        Sent::Everyone(sent) => render_all(sent, look),
    })?;
    match sent {
        Sent::Everyone(sent) if !sent.refused.is_empty() => Err(Failure::TOLD),
        _ => Ok(()),
    }
}

/// The same recipients on all machines.
fn everywhere(to: Recipient) -> Result<Recipient, Failure> {
    match to {
        Recipient::Everyone(Scope::Repo | Scope::RepoEverywhere) => Ok(Recipient::Everyone(Scope::RepoEverywhere)),
        Recipient::Everyone(Scope::Machine | Scope::Everywhere) => Ok(Recipient::Everyone(Scope::Everywhere)),
        Recipient::Everyone(Scope::Directory) => {
            Err(Failure::usage("--everywhere: a directory is on one machine; use it with @repo"))
        }
        Recipient::One(peer) => Err(Failure::usage(format!("--everywhere is for @repo, and {peer} is one session"))),
    }
}

/// The message that the command line describes.
pub(super) fn message(to: &impl ToString, words: &[String]) -> Result<SendRequest, Failure> {
    let text = if words == ["-"] { standard_input()? } else { words.join(" ") };
    Ok(request(to, text))
}

/// A message whose key makes it one message however often it is sent.
pub(super) fn request(to: &impl ToString, text: String) -> SendRequest {
    SendRequest { to: to.to_string(), text, reply_to: None, key: Some(random::token(KEY_LENGTH)), cwd: None, wake: false }
}

pub(super) async fn send<T: DeserializeOwned>(message: &SendRequest, broker: &Client, out: Out) -> Answered<T> {
    patiently(Instant::now() + PATIENCE, out, async || broker.post("/v1/send", None, message).await).await
}

/// Repeats `attempt` until the broker answers or `deadline` has passed: a restart of the broker is no error.
pub(super) async fn patiently<T>(deadline: Instant, out: Out, attempt: impl AsyncFnMut() -> Answered<T>) -> Answered<T> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut told = false;
    let is_away = |answer: &Answered<T>| {
        let away = answer.as_ref().is_err_and(|error| matches!(error.code, Code::Unreachable | Code::Stopping));
        if away && !std::mem::replace(&mut told, true) {
            out.aside(&format!("The broker is away; waiting up to {:.0} s for it …", left().as_secs_f64()));
        }
        away
    };
    Retry { pause: PAUSE, patience: left() }.run(attempt, is_away).await
}

fn standard_input() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(MAX_INPUT + 1).read_to_end(&mut bytes);
    read.map_err(|e| Failure::local(format!("reading the message from standard input: {e}"), "give it as an argument"))?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(Failure::usage(format!("standard input holds more than {} MiB; no message is that long", MAX_INPUT >> 20)));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| Failure::usage("standard input is not text in UTF-8"))?;
    if text.ends_with('\n') {
        text.truncate(text.trim_end_matches('\n').len().max(text.len() - 1));
    }
    Ok(text)
}

fn render_all(sent: &Broadcast, look: Look) -> String {
    let refused = sent.refused.iter().map(|refused| {
        let (to, why) = (printable_line(&refused.to_name), refused.error.to_string());
        format!("{}  to {to} ({}): {}\n", look.paint(Tone::Bad, "refused"), refused.to, printable_line(&why))
    });
    let lines: String = sent.receipts.iter().map(|receipt| render(receipt, look)).chain(refused).collect();
    if lines.is_empty() { "No sessions in this scope: nothing was sent.\n".to_owned() } else { lines }
}

fn render(receipt: &Receipt, look: Look) -> String {
    let (id, state, to) = (&receipt.message_id, receipt.state, printable_line(&receipt.to_name));
    let from = &receipt.from;
    let from = if from.as_str() == CLI_SENDER { String::new() } else { format!(", from the session {from}") };
    let mut out = format!("{id}  {}  to {to} ({}){from}\n", look.paint(Tone::Good, state.as_str()), receipt.to);
    if let Some(warning) = &receipt.warning {
        out += &format!("{} {}\n", look.paint(Tone::Warn, "warning:"), printable_line(&look.sentence(warning)));
    }
    out
}
