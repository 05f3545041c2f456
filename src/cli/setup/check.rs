//! The check that ends a setup: a message goes from one session to another, through the broker that sessions will use.
//!
//! Both sessions are real `claude-peers-mcp` processes and leave the list of peers at their end. They are the same two peers
//! every time, so that many setups leave no more behind than one.

use super::step::{Ended, Problem, Step};
use crate::{
    cli::{
        demo::{
            broker::{Broker, broken},
            session::Session,
            stage::Stage,
        },
        exit::Failure,
        manager::READ_LOG,
    },
    client::Client,
    wire::{Hello, HistoryEntry, State, random_token},
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;

/// The message's text, before the words that make it another one every time: saying the same over and over is refused.
const TEXT: &str = "A message of `claude-peers setup`, to see whether messages arrive:";

/// Whose broker carries the message.
pub enum Through {
    /// The installed service's, behind this socket.
    Service(PathBuf),
    /// One of the check's own, where nothing is installed that could start one.
    Own,
}

/// The step.
pub fn step(through: Through) -> Step {
    let what = match through {
        Through::Service(_) => "send a message from one session to another through the service",
        Through::Own => "send a message from one session to another through a broker of its own",
    };
    Step::to_do("round_trip", what, async move {
        round_trip(through).await.map(Ended::Well).map_err(|failure| {
            let report = failure.report();
            Problem::new(report.message, format!("`claude-peers doctor` finds out why; the broker's log: `{READ_LOG}`"))
        })
    })
}

async fn round_trip(through: Through) -> Result<String, Failure> {
    let stage = Stage::set("setup")?;
    let (stage, own) = match through {
        Through::Service(socket) => (stage.before(socket), None),
        Through::Own => {
            let (broker, ..) = Broker::start(&stage).await?;
            (stage, Some(broker))
        }
    };
    let client = Client::new(stage.socket(), "claude-peers");
    let began = Instant::now();
    let hello = client.hello().await?;
    let answered = began.elapsed();
    let carried = carry(&stage, &client).await;
    if let Some(broker) = own {
        broker.stop().await?;
    }
    let told = carried.map_err(|failure| with_logs(failure, &stage))?.tell(&hello, answered);
    stage.strike()?;
    Ok(told)
}

/// How long the message took.
struct Carried {
    accepted: Duration,
    received: Duration,
}

impl Carried {
    fn tell(&self, Hello { version, pid, .. }: &Hello, answered: Duration) -> String {
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1_000.0);
        format!(
            "broker {version} (process {pid}) answered in {}; accepted in {}, received after {}, receipt: delivered",
            ms(answered),
            ms(self.accepted),
            ms(self.received)
        )
    }
}

async fn carry(stage: &Stage, client: &Client) -> Result<Carried, Failure> {
    let mut sender = start(stage, "setup-check-sender").await?;
    let mut receiver = start(stage, "setup-check-receiver").await?;
    let listed = receiver.tool("list_peers", json!({ "scope": "directory" })).await?;
    let id = listed["self"]["id"].as_str().ok_or_else(|| broken(format!("the session is no peer of its broker: {listed}")))?;

    let text = format!("{TEXT} {}", random_token(8));
    let began = Instant::now();
    let sent = sender.tool("send_message", json!({ "targetPeerId": id, "message": text })).await?;
    let accepted = began.elapsed();
    let message = sent["messageId"].as_str().ok_or_else(|| broken(format!("the message was not accepted: {sent}")))?;
    let checked = receiver.tool("check_messages", json!({})).await?;
    let received = began.elapsed();
    let mut messages = checked["messages"].as_array().into_iter().flatten();
    if !messages.any(|received| received["id"] == message && received["text"] == text.as_str()) {
        return Err(broken(format!(
            "{message} was accepted, and its recipient got {}",
            Value::from(checked["messages"].to_string())
        )));
    }
    // At its end a session has told the broker what became of its mail, and has left.
    receiver.end().await?;
    sender.end().await?;
    let entry: HistoryEntry = client.get(&format!("/v1/messages/{message}"), None).await?;
    match entry.receipt.state {
        State::Delivered => Ok(Carried { accepted, received }),
        state => Err(broken(format!("{message} was received, and its receipt says {state}"))),
    }
}

async fn start(stage: &Stage, name: &str) -> Result<Session, Failure> {
    let folder = stage.path(name);
    std::fs::create_dir(&folder).map_err(|e| {
        Failure::local(
            format!("making {}: {e}", Path::new(&folder).display()),
            "make room there, or set TMPDIR to another directory",
        )
    })?;
    let (session, _) = Session::start(stage, &folder, &format!("claude-peers-{name}"), "pull").await?;
    Ok(session)
}

fn with_logs(failure: Failure, stage: &Stage) -> Failure {
    let report = failure.report();
    Failure::local(report.message + &stage.logs(), report.help.unwrap_or_default())
}
