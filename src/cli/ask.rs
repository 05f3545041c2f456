//! `ask`: a question to a session, and its answer.

use super::send::{self, KEY_LENGTH};
use crate::{
    agents::shown,
    client::{Client, with_query},
    console::{
        exit::Failure,
        out::{Look, Out},
    },
    platform::retry::Retry,
    wire::{
        Acknowledged, Asked, CLI_SENDER, PeerRef, Receipt, Result as Answered, SendRequest, random_token,
        text::{printable, printable_line},
    },
};
use std::time::{Duration, Instant};

/// The pause before a broker that is away is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// What to ask, whom, and how long to wait.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The session: an id or a name, as `claude-peers peers` shows them
    pub peer: PeerRef,
    /// The question; words are joined by spaces, `-` alone reads standard input (its last line break is left out)
    #[arg(required = true)]
    pub text: Vec<String>,
    /// How many seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub wait: u32,
}

/// Asks, waits, and prints the answer.
pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    let (to, text) = (args.peer.to_string(), send::text(&args.text)?);
    let message = SendRequest { to, text, reply_to: None, key: Some(random_token(KEY_LENGTH)), cwd: None };
    let question: Receipt = send::send(&message, broker, out).await?;
    let asked = wait(&question, Duration::from_secs(args.wait.into()), broker).await?;
    let Some(answer) = &asked.answer else { return Err(no_answer(&asked)) };
    out.answer(&asked, |_, look| render(&answer.text, look))?;
    let read = format!("/v1/messages/{}/read", answer.receipt.message_id);
    let _: Acknowledged = broker.post(&read, None, &serde_json::json!({})).await?;
    Ok(())
}

/// Waits for the answer, through restarts of the broker.
async fn wait(question: &Receipt, patience: Duration, broker: &Client) -> Answered<Asked> {
    let deadline = Instant::now() + patience;
    let ask = async || {
        let left = deadline.saturating_duration_since(Instant::now());
        let seconds = left.as_secs_f64().ceil().to_string();
        let path = with_query(&format!("/v1/messages/{}/reply", question.message_id), &[("waitSeconds", &seconds)]);
        broker.get_waiting(&path, None, left).await
    };
    Retry { pause: (PAUSE, PAUSE), patience }.run(ask, send::is_away).await
}

fn render(text: &str, look: Look) -> String {
    // A script gets the text as it is; what a terminal would obey is made visible.
    let text = if look.terminal { printable(text) } else { text.into() };
    if text.ends_with('\n') { text.into_owned() } else { format!("{text}\n") }
}

fn no_answer(asked: &Asked) -> Failure {
    let question = &asked.question;
    let (id, name) = (&question.message_id, printable_line(&question.to_name));
    Failure::NoAnswer {
        what: format!("no answer to {id} from {name} yet: {}", shown::fate(asked)),
        help: match question.from.as_str() {
            CLI_SENDER => "an answer that comes later stands in `claude-peers history`",
            _ => "an answer that comes later arrives as a message to this session",
        },
    }
}
