//! `send`: a message from the person at the keyboard or a script; inside a session, from that session.

use super::peers;
use crate::{
    client::Client,
    console::{
        exit::Failure,
        out::{Look, Out, Tone},
    },
    platform::retry::Retry,
    wire::{
        self, Broadcast, CLI_SENDER, Code, EVERYONE, MessageId, PeerRef, Receipt, Scope, SendRequest, Sent, random_token,
        text::printable_line,
    },
};
use serde::de::DeserializeOwned;
use std::{io::Read, str::FromStr, time::Duration};

/// Outlasts a restart of the broker.
const RETRY: Retry = Retry { pause: (Duration::from_millis(50), Duration::from_millis(500)), patience: Duration::from_secs(5) };
/// Most that is read from standard input; far above the broker's limit, which is a setting and gives the real answer.
const MAX_INPUT: u64 = 16 * 1024 * 1024;
/// Length of the idempotency key.
pub(super) const KEY_LENGTH: usize = 32;

/// What to send, and to whom.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recipient: an id or a name, as `claude-peers peers` shows them, or all in a scope: @machine, @directory, @repo
    pub peer: Recipient,
    /// The message; words are joined by spaces, `-` alone reads standard input (its last line break is left out)
    #[arg(required = true)]
    pub text: Vec<String>,
    /// The id of the message that this one answers
    #[arg(long, value_name = "ID")]
    pub reply_to: Option<MessageId>,
}

/// Who is to get a message.
#[derive(Debug, Clone)]
pub enum Recipient {
    /// One peer.
    One(PeerRef),
    /// Every peer in a scope.
    Everyone(Scope),
}

impl FromStr for Recipient {
    type Err = wire::Error;
    fn from_str(text: &str) -> wire::Result<Self> {
        match text.trim().strip_prefix(EVERYONE) {
            Some(scope) => Ok(Self::Everyone(scope.parse()?)),
            None => Ok(Self::One(text.parse()?)),
        }
    }
}

/// Sends it.
pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    let text = text(&args.text)?;
    let (to, cwd) = match args.peer {
        Recipient::One(peer) => (peer.to_string(), None),
        Recipient::Everyone(scope) => (format!("{EVERYONE}{}", scope.as_str()), peers::seen_from(scope)?),
    };
    let reply_to = args.reply_to.map(|id| id.to_string());
    let message = SendRequest { to, text, reply_to, key: Some(random_token(KEY_LENGTH)), cwd };
    let sent: Sent = send(&message, broker, out).await?;
    out.answer(&sent, |sent, look| match sent {
        Sent::One(receipt) => render(receipt, look),
        Sent::Everyone(sent) => render_all(sent, look),
    })?;
    match sent {
        Sent::Everyone(sent) if !sent.refused.is_empty() => Err(Failure::Told),
        _ => Ok(()),
    }
}

/// The text that these words of the command line stand for.
pub(super) fn text(words: &[String]) -> Result<String, Failure> {
    if words == ["-"] { standard_input() } else { Ok(words.join(" ")) }
}

/// Sends until the broker answers or time is up. Its key keeps a repeated message from counting twice.
pub(super) async fn send<T: DeserializeOwned>(message: &SendRequest, broker: &Client, out: Out) -> Result<T, Failure> {
    let mut told = false;
    let again = |answer: &wire::Result<T>| {
        if is_away(answer) && !std::mem::replace(&mut told, true) {
            out.aside(&format!("The broker is away; waiting up to {} s for it …", RETRY.patience.as_secs()));
        }
        is_away(answer)
    };
    Ok(RETRY.run(async || broker.post("/v1/send", None, message).await, again).await?)
}

/// Whether the broker may answer after a restart.
pub(super) fn is_away<T>(answer: &wire::Result<T>) -> bool {
    answer.as_ref().is_err_and(|error| matches!(error.code, Code::Unreachable | Code::Stopping))
}

fn standard_input() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(MAX_INPUT + 1).read_to_end(&mut bytes);
    read.map_err(|e| Failure::local(format!("reading the message from standard input: {e}"), "give it as an argument"))?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(Failure::Usage(format!("standard input holds more than {} MiB; no message is that long", MAX_INPUT >> 20)));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| Failure::Usage("standard input is not text in UTF-8".to_owned()))?;
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
        out += &format!("{} {}\n", look.paint(Tone::Warn, "warning:"), printable_line(warning));
    }
    out
}
