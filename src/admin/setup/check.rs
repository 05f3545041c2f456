//! The check that ends a setup: a message goes from one session to another, through the broker that sessions will use.
//!
//! Both sessions are real `claude-peers-mcp` processes and leave the list of peers at their end. They are the same two peers
//! every time, so that many setups leave no more behind than one.

use super::step::{Ended, Step};
use crate::{
    admin::{
        demo::{
            broker::{Broker, broken},
            session::Session,
            stage::Stage,
        },
        manager::READ_LOG,
    },
    client::Client,
    console::exit::{Failure, Problem},
    platform::random,
    wire::{HistoryEntry, MessageState},
};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};
use tokio::time::Instant;

/// The message's text, before the words that make it another one every time: saying the same over and over is refused.
const TEXT: &str = "A message of `claude-peers setup`, to see whether messages arrive:";

/// The check through the installed service's broker, behind this socket, or one of its own where nothing is installed that could start
/// one.
pub fn step(service: Option<PathBuf>) -> Step {
    let whose = if service.is_some() { "the service" } else { "a broker of its own" };
    Step::to_do("round_trip", format!("send a message from one session to another through {whose}"), async move {
        let help = format!("`claude-peers doctor` finds out why; the broker's log: `{READ_LOG}`");
        round_trip(service).await.map(Ended::Well).map_err(|failure| Problem { help, ..failure.into() })
    })
}

async fn round_trip(service: Option<PathBuf>) -> Result<String, Failure> {
    let stage = Stage::set("setup")?;
    let (stage, own) = match service {
        Some(socket) => (stage.before(socket), None),
        None => {
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
    let (accepted, received) = carried.map_err(|failure| {
        let Problem { what, help } = failure.into();
        Problem::new(what + &stage.logs(), help)
    })?;
    stage.strike()?;
    let [answered, accepted, received] =
        [answered, accepted, received].map(|time| format!("{:.1} ms", time.as_secs_f64() * 1_000.0));
    let (version, pid) = (hello.version, hello.pid);
    Ok(format!(
        "broker {version} (process {pid}) answered in {answered}; accepted in {accepted}, received after {received}, receipt: delivered"
    ))
}

/// Carries a message; gives how long it took to be accepted, and to be received.
async fn carry(stage: &Stage, client: &Client) -> Result<(Duration, Duration), Failure> {
    let mut sender = start(stage, "setup-check-sender").await?;
    let mut receiver = start(stage, "setup-check-receiver").await?;
    let listed = receiver.tool("list_peers", json!({ "scope": "directory" })).await?;
    let id = listed["self"]["id"].as_str().ok_or_else(|| broken(format!("the session is no peer of its broker: {listed}")))?;

    let text = format!("{TEXT} {}", random::token(8));
    let began = Instant::now();
    let sent = sender.tool("send_message", json!({ "targetPeerId": id, "message": text })).await?;
    let accepted = began.elapsed();
    let message = sent["messageId"].as_str().ok_or_else(|| broken(format!("the message was not accepted: {sent}")))?;
    let checked = receiver.tool("check_messages", json!({})).await?;
    let received = began.elapsed();
    let mut messages = checked["messages"].as_array().into_iter().flatten();
    if !messages.any(|received| received["id"] == message && received["text"] == text.as_str()) {
        let got = Value::from(checked["messages"].to_string());
        return Err(broken(format!("{message} was accepted, and its recipient got {got}")));
    }
    // At its end a session has told the broker what became of its mail, and has left.
    receiver.end().await?;
    sender.end().await?;
    let entry: HistoryEntry = client.get(&format!("/v1/messages/{message}"), None).await?;
    match entry.receipt.state {
        MessageState::Delivered => Ok((accepted, received)),
        state => Err(broken(format!("{message} was received, and its receipt says {state}"))),
    }
}

async fn start(stage: &Stage, name: &str) -> Result<Session, Failure> {
    let folder = stage.folder(name)?;
    let (session, _) = Session::start(stage, &folder, &format!("claude-peers-{name}"), "pull").await?;
    Ok(session)
}
