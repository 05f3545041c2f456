//! `send`: a message from the person at the keyboard, or from a script.

use super::{
    exit::Failure,
    out::{Look, Out, Tone},
};
use crate::{
    client::Client,
    wire::{Code, MessageId, PeerRef, Receipt, Send, random_token, text::printable_line},
};
use std::{
    io::Read,
    time::{Duration, Instant},
};

/// How long a broker that is away is waited for: a restart takes less, and is no error.
const PATIENCE: Duration = Duration::from_secs(5);
/// First and longest pause between two attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// Most that is read from standard input; far above the broker's limit, which is a setting and gives the real answer.
const MAX_INPUT: u64 = 16 * 1024 * 1024;
/// Length of the idempotency key.
const KEY_LENGTH: usize = 32;

/// What to send, and to whom.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recipient: an id or a name, as `claude-peers peers` shows them
    pub peer: PeerRef,
    /// The message; words are joined by spaces, `-` alone reads standard input (its last line break is left out)
    #[arg(required = true)]
    pub text: Vec<String>,
    /// The id of the message that this one answers
    #[arg(long, value_name = "ID")]
    pub reply_to: Option<MessageId>,
}

/// Sends it.
pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    let text = if args.text == ["-"] { standard_input()? } else { args.text.join(" ") };
    let message = Send {
        to: args.peer.to_string(),
        text,
        reply_to: args.reply_to.map(|id| id.to_string()),
        key: Some(random_token(KEY_LENGTH)),
    };
    out.answer(&send(&message, broker, out).await?, render)
}

/// Sends until the broker has answered or its time is up. The key makes it one message, however often it is said.
async fn send(message: &Send, broker: &Client, out: Out) -> Result<Receipt, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let (mut pause, longest) = PAUSE;
    loop {
        match broker.post("/v1/send", None, message).await {
            Err(error) if matches!(error.code, Code::Unreachable | Code::Stopping) && Instant::now() + pause < deadline => {
                if pause == PAUSE.0 {
                    out.aside(&format!("The broker is away; waiting up to {} s for it …", PATIENCE.as_secs()));
                }
                tokio::time::sleep(pause).await;
                pause = longest.min(pause * 2);
            }
            answer => return Ok(answer?),
        }
    }
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

fn render(receipt: &Receipt, look: Look) -> String {
    let (id, state, to) = (&receipt.message_id, receipt.state, printable_line(&receipt.to_name));
    let mut out = format!("{id}  {}  to {to} ({})\n", look.paint(Tone::Good, state.as_str()), receipt.to);
    if let Some(warning) = &receipt.warning {
        out += &format!("{} {}\n", look.paint(Tone::Warn, "warning:"), printable_line(warning));
    }
    out
}
